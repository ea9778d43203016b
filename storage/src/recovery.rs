//! Start-up: the tables as the store has them, then the frames of the logs that no table holds yet.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::{StreamExt, stream};
use object_store::ObjectStore;
use object_store::path::Path as ObjectPath;

use crate::commit::{State, TableLog};
use crate::deployment::{Recovery, Shared};
use crate::disk::{Disk, is_odd, read_small, replace};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::faults;
use crate::idempotency::{beside, in_order};
use crate::latency::Measure;
use crate::record::{Dataset, Kind, TableId, Tenant};
use crate::seal::dates::Begun;
use crate::seal::run::rows_app;
use crate::store::unavailable;
use crate::table::Table;
use crate::wal::frame::Read;
use crate::wal::log::{Contents, Ledger, Remembered};
use crate::wal::{replay, salvage, segment};

pub mod attempt;
pub mod bucket;
mod own;
mod relieve;
mod take;
#[cfg(test)]
mod tests;

use self::take::{Holes, Take};

/// Where a log ended, for the lane that goes on with it.
#[derive(Debug)]
pub struct Tail {
    /// What its segments hold.
    pub ledger: Arc<Ledger>,
    /// Its highest segment.
    pub last_segment: u64,
    /// Its last frame.
    pub last_seq: u64,
    /// How often it was opened.
    pub epoch: u64,
    /// The next row's number in each table.
    pub next_rows: HashMap<TableId, u64>,
}

impl Tail {
    /// The tail of a log that has no folder or no frames yet.
    ///
    /// Tables may still know its writer, when the log's folder was lost: numbers go on behind theirs.
    pub fn fresh(shared: &Shared, folder: &Path, writer: &Arc<str>) -> Self {
        let ledger = Arc::new(Ledger::new(
            Arc::clone(&shared.disk),
            folder.to_owned(),
            Arc::clone(writer),
            HashMap::new(),
            Arc::clone(&shared.wal_bytes),
            shared.options.wal_segment_bytes,
        ));
        shared.ledgers.lock().expect("no panic happens under this lock").push(Arc::clone(&ledger));
        let (last_seq, next_rows) = known_to_tables(shared, writer);
        Self { ledger, last_segment: 0, last_seq, epoch: 0, next_rows }
    }
}

fn known_to_tables(shared: &Shared, writer: &str) -> (u64, HashMap<TableId, u64>) {
    let mut last_seq = 0;
    let mut next_rows = HashMap::new();
    for table in shared.tables.all() {
        let state = &table.published().state;
        last_seq = last_seq.max(state.last_seq(writer)).max(Begun::last_seq(state, writer));
        if table.kind == Kind::Latency {
            // Durations get in before their rows: where the log is lost between, its numbers go on behind both.
            last_seq = last_seq.max(folded(state, writer));
        }
        let next = state.last_seq(&rows_app(writer));
        if next > 0 {
            next_rows.insert(table.id.clone(), next);
        }
    }
    (last_seq, next_rows)
}

fn folded(state: &State, writer: &str) -> u64 {
    let of_writer = |app: &str| app.strip_prefix(writer).is_some_and(|rest| rest.starts_with('/'));
    let seqs = state.txns.iter().filter(|(app, _)| of_writer(app)).map(|(_, seq)| *seq);
    seqs.max().and_then(|seq| u64::try_from(seq).ok()).unwrap_or(0)
}

/// The name of lane `index`'s log.
pub fn writer_name(node: &str, index: usize) -> String {
    format!("{node}-{index}")
}

/// Length of a data folder's name among writers.
const NAME_BYTES: usize = 8;

/// The longest name of a data folder, in bytes.
const NODE_BYTES_MAX: u64 = 64;

/// This data folder's name among writers: made once, kept beside the logs.
///
/// # Errors
/// `Kind::Corrupt` when the file is not what was made, `Kind::Unavailable` when the folder cannot be written.
pub fn node(disk: &dyn Disk, wal: &Path) -> Result<Arc<str>> {
    let failed = |error| Error::new(ErrorKind::Unavailable, "log folder cannot be opened").with_source(error);
    let path = wal.join("node");
    let damaged = |what: &str| {
        let text = format!(
            "{} {what}: it names this data folder's writers; put back the name they have",
            path.display()
        );
        Error::new(ErrorKind::Corrupt, text)
    };
    let bytes = match read_small(disk, &path, NODE_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let node = uuid::Uuid::new_v4().simple().to_string()[..NAME_BYTES].to_owned();
            replace(disk, &path, node.as_bytes()).map_err(failed)?;
            return Ok(node.into());
        }
        Err(error) if is_odd(&error) || error.kind() == std::io::ErrorKind::FileTooLarge => {
            return Err(damaged("is no name").with_source(error));
        }
        Err(error) => return Err(failed(error)),
    };
    // Under another name every row of the log would count as new: what cannot be the name is refused.
    let is_name =
        |name: &str| name.len() == NAME_BYTES && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    match std::str::from_utf8(&bytes).map(str::trim) {
        Ok(node) if is_name(node) => Ok(node.into()),
        _ => Err(damaged("is no name of eight hexadecimal digits")),
    }
}

/// Tables that are opened at once. Chosen: hides a bucket's latency.
const TABLES_AT_ONCE: usize = 8;

/// Reads every table that the store has. One that a newer build wrote, or that is none of ours, is left alone.
///
/// # Errors
/// `Kind::Unavailable` when the store does not answer; `Kind::Corrupt` naming the object when a table's log cannot be, as
/// acknowledged rows may be what is missing. With `salvage` that table is left alone, too.
pub async fn read_tables(shared: &Shared) -> Result<()> {
    let mut found = Vec::new();
    for tenant in folders(&*shared.store, "tenant").await.map_err(unavailable)? {
        let Ok(name) = Tenant::stored(&tenant) else {
            tracing::warn!(folder = %format!("tenant/{tenant}"), "no tenant has such a name: it is left alone");
            continue;
        };
        for dataset in folders(&*shared.store, &format!("tenant/{tenant}")).await.map_err(unavailable)? {
            if let Ok(dataset) = Dataset::parse(&dataset) {
                found.push(TableId::new(name.clone(), dataset));
            }
        }
    }
    let mut opened = stream::iter(found)
        .map(|id| async move {
            let opened = open_table(shared, &id).await;
            (id, opened)
        })
        .buffered(TABLES_AT_ONCE);
    let mut tables = Vec::new();
    while let Some((id, opened)) = opened.next().await {
        match opened {
            Ok(table) => tables.extend(table),
            Err(error) if error.kind() == ErrorKind::Newer => {
                shared.leave_alone(&id, &format!("{error}; a newer build reads it"));
            }
            Err(error) if error.kind() == ErrorKind::Corrupt && shared.options.salvage => {
                shared.leave_alone(&id, &error.to_string());
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                let text = format!(
                    "table {id} is damaged; restore the object from a version or copy of the store; to go on without \
                     this table, start with --salvage"
                );
                return Err(Error::new(ErrorKind::Corrupt, text).with_source(error));
            }
            Err(error) => return Err(error),
        }
    }
    shared.tables.fill(tables);
    Ok(())
}

async fn open_table(shared: &Shared, id: &TableId) -> Result<Option<Table>> {
    let log = TableLog::new(Arc::clone(&shared.store), id.prefix());
    faults::reach("start.before_load").await?;
    let state = log.load().await?;
    // A folder without a commit is what an unfinished first seal left: no table yet.
    let Some(kind) = state.kind()? else { return Ok(None) };
    Table::new(id.clone(), kind, log, state, &shared.memory).map(Some)
}

async fn folders(store: &dyn ObjectStore, prefix: &str) -> object_store::Result<Vec<String>> {
    let listed = store.list_with_delimiter(Some(&ObjectPath::from(prefix))).await?;
    Ok(listed.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_owned)).collect())
}

fn lanes(disk: &dyn Disk, wal: &Path) -> Result<Vec<usize>> {
    let failed = |error| Error::new(ErrorKind::Unavailable, "log cannot be read").with_source(error);
    let mut lanes = Vec::new();
    for name in disk.names(wal).map_err(failed)? {
        let lane = name.parse().ok().filter(|lane: &usize| lane.to_string() == name);
        // Whatever has a lane's name and is no folder was not put there by us.
        let is_folder = lane.is_some() && disk.names(&wal.join(&name)).is_ok();
        match lane.filter(|_| is_folder) {
            Some(lane) => lanes.push(lane),
            None if matches!(&*name, "node" | "node.part" | "attempt" | "hold") => {}
            None => tracing::warn!(path = %wal.join(&name).display(), "what is no log of ours is left alone"),
        }
    }
    lanes.sort_unstable();
    Ok(lanes)
}

/// Accepts what cannot be read of any log, durably, and names it.
///
/// # Errors
/// `Kind::Unavailable` when files cannot be read or written.
pub fn salvage(shared: &Shared, wal: &Path) -> Result<()> {
    for lane in lanes(&*shared.disk, wal)? {
        for gap in salvage::accept(&*shared.disk, &wal.join(lane.to_string()))? {
            tracing::error!(
                lane,
                segment = gap.segment,
                from = gap.from,
                to = gap.to,
                first_frame = gap.first_seq,
                frames = gap.next_seq - gap.first_seq,
                "a stretch of the log cannot be read and is left out"
            );
        }
    }
    Ok(())
}

/// Replays every log on the disk; returns the declared keys that each remembers. Chunks that no table holds go to the hot buffer and are measured again.
///
/// # Errors
/// `Kind::Corrupt` naming segment and offset; `Kind::Unavailable` when files cannot be read.
pub fn replay_logs(
    shared: &Shared,
    wal: &Path,
    measure: Measure,
    recovery: &mut Recovery,
    progress: &impl Fn(Recovery),
) -> Result<Vec<Vec<Remembered>>> {
    let failed = |error| Error::new(ErrorKind::Unavailable, "log cannot be read").with_source(error);
    let disk = &*shared.disk;
    let lanes = lanes(disk, wal)?;
    for lane in &lanes {
        let folder = wal.join(lane.to_string());
        for number in segment::list(disk, &folder).map_err(failed)? {
            recovery.bytes_total += disk.len(&segment::path(&folder, number)).map_err(failed)?;
        }
    }
    let mut keys = Vec::new();
    for lane in lanes {
        let folder = wal.join(lane.to_string());
        let (tail, of_log) = replay_log(shared, lane, &folder, measure, recovery, progress)?;
        keys.push(of_log);
        shared.ledgers.lock().expect("no panic happens under this lock").push(Arc::clone(&tail.ledger));
        shared.tails.lock().expect("no panic happens under this lock").insert(lane, tail);
    }
    Ok(keys)
}

/// Reads every log of this node, those on its disk and the one in the bucket: what no table holds is in the hot buffer
/// then, and declared keys stand.
///
/// # Errors
/// As [`replay_logs`] and [`bucket::take_over`].
pub async fn replay_all(
    shared: &Shared,
    wal: &Path,
    measure: Measure,
    progress: impl Fn(Recovery),
) -> Result<()> {
    let mut recovery = Recovery::default();
    let mut keys = replay_logs(shared, wal, measure, &mut recovery, &progress)?;
    keys.push(bucket::take_over(shared, measure, &mut recovery, &progress).await?);
    // They age anew from here: by how much is known to no clock. Where there is no room for all, the newest stand.
    let now_ns = shared.steady_ns();
    shared.keys.remember(now_ns, in_order(keys).into_iter().map(|(tenant, _, key)| (tenant, now_ns, key)));
    Ok(())
}

fn replay_log(
    shared: &Shared,
    lane: usize,
    folder: &Path,
    measure: Measure,
    recovery: &mut Recovery,
    progress: &impl Fn(Recovery),
) -> Result<(Tail, Vec<Remembered>)> {
    let failed = |error| Error::new(ErrorKind::Unavailable, "log cannot be read").with_source(error);
    let disk = &*shared.disk;
    let gaps = salvage::known(disk, folder)?;
    let writer: Arc<str> = writer_name(&shared.node, lane).into();
    let holes = if gaps.is_empty() { Holes::Expected } else { Holes::Named };
    let mut take = Take::new(shared, Arc::clone(&writer), measure, holes);
    let mut segments: HashMap<u64, Contents> = HashMap::new();
    for number in segment::list(disk, folder).map_err(failed)? {
        segments.insert(number, Contents::default());
    }
    let mut last_number = 0;
    let summary = replay::replay(disk, folder, &gaps, |place, header, payload| {
        let number = place.segment;
        if number != last_number {
            last_number = number;
            recovery.bytes_done =
                (recovery.bytes_done + shared.options.wal_segment_bytes).min(recovery.bytes_total);
            progress(*recovery);
        }
        if payload.is_empty() {
            return Ok(());
        }
        let contents = segments.entry(number).or_default();
        match replay::decode(place, header, payload)? {
            Read::Known(meta, batch) => {
                contents.note(header.seq, &meta);
                take.frame(header.seq, &meta, batch, recovery)
            }
            Read::Newer(envelope) => {
                contents.note_newer(header.seq, &envelope.table);
                take.newer(header.seq, &envelope);
                Ok(())
            }
        }
    })?;
    if let Some((number, at)) = summary.torn {
        tracing::warn!(
            lane,
            segment = number,
            offset = at,
            "a torn tail that was never acknowledged is cut off"
        );
        segments.retain(|other, _| *other <= number);
    }
    faults::io("replay.before_settle").map_err(failed)?;
    summary.settle(disk, folder).map_err(failed)?;
    let (beside, broken) = beside::read_beside(disk, folder).map_err(failed)?;
    shared.stats.broken_keys.fetch_add(broken, Ordering::Relaxed);
    let beside = shared.keys.sealed(beside);
    let gathered = faults::io("replay.before_keys")
        .and_then(|()| beside::gather_beside(disk, folder, &beside, shared.options.idempotency_keys_max));
    // Every key is in a file as before. A disk that is full must not keep the log from being read (F16).
    if let Err(error) = gathered {
        tracing::warn!(lane, %error, "the declared keys beside the log stay in many files until the next start");
    }
    let mut keys = beside;
    keys.extend(shared.keys.sealed(take.keys));
    let ledger = Ledger::new(
        Arc::clone(&shared.disk),
        folder.to_owned(),
        Arc::clone(&writer),
        segments,
        Arc::clone(&shared.wal_bytes),
        shared.options.wal_segment_bytes,
    );
    progress(*recovery);
    let tail = Tail {
        ledger: Arc::new(ledger),
        last_segment: summary.last_segment,
        last_seq: summary.last_seq.max(take.last_seq),
        epoch: summary.epoch,
        next_rows: take.next_rows,
    };
    Ok((tail, keys))
}
