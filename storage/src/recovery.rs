//! Start-up: the tables as the store has them, then the frames of the logs that no table holds yet.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path as ObjectPath;

use crate::commit::{State, TableLog};
use crate::deployment::{Recovery, Shared};
use crate::disk::{Disk, replace};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::faults;
use crate::idempotency;
use crate::latency::Measure;
use crate::record::{Dataset, Kind, TableId, Tenant};
use crate::seal::dates::Begun;
use crate::seal::run::rows_app;
use crate::store::unavailable;
use crate::table::Table;
use crate::wal::log::{Contents, Ledger, Remembered};
use crate::wal::{replay, salvage, segment};

pub mod bucket;
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

/// This data folder's name among writers: made once, kept beside the logs.
///
/// # Errors
/// `Kind::Unavailable` when the folder cannot be written.
pub fn node(disk: &dyn Disk, wal: &Path) -> Result<Arc<str>> {
    let failed = |error| Error::new(ErrorKind::Unavailable, "log folder cannot be opened").with_source(error);
    let path = wal.join("node");
    match disk.read(&path).map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned()) {
        Ok(node) if !node.is_empty() => Ok(node.into()),
        Ok(_) => {
            Err(Error::new(ErrorKind::Corrupt, "wal/node is empty: it names this data folder's writers"))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let node = uuid::Uuid::new_v4().simple().to_string()[..8].to_owned();
            replace(disk, &path, node.as_bytes()).map_err(failed)?;
            Ok(node.into())
        }
        Err(error) => Err(failed(error)),
    }
}

/// Reads every table that the store has.
///
/// # Errors
/// `Kind::Unavailable` when the store does not answer, `Kind::Corrupt` when a table's log cannot be.
pub async fn read_tables(shared: &Shared) -> Result<()> {
    let tenants = folders(&*shared.store, "tenant").await.map_err(unavailable)?;
    for tenant in tenants {
        let Ok(name) = Tenant::stored(&tenant) else { continue };
        for dataset in folders(&*shared.store, &format!("tenant/{tenant}")).await.map_err(unavailable)? {
            let Ok(dataset) = Dataset::parse(&dataset) else { continue };
            let id = TableId::new(name.clone(), dataset);
            let log = TableLog::new(Arc::clone(&shared.store), id.prefix());
            faults::reach("start.before_load").await?;
            let state = log.load().await?;
            // A folder without a commit is what an unfinished first seal left: no table yet.
            let Some(kind) = state.kind()? else { continue };
            shared.tables.ensure(&id, kind, || Table::new(id.clone(), kind, log, state))?;
        }
    }
    Ok(())
}

async fn folders(store: &dyn ObjectStore, prefix: &str) -> object_store::Result<Vec<String>> {
    let listed = store.list_with_delimiter(Some(&ObjectPath::from(prefix))).await?;
    Ok(listed.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_owned)).collect())
}

fn lanes(disk: &dyn Disk, wal: &Path) -> Result<Vec<usize>> {
    let failed = |error| Error::new(ErrorKind::Unavailable, "log cannot be read").with_source(error);
    let mut lanes: Vec<usize> =
        disk.names(wal).map_err(failed)?.iter().filter_map(|name| name.parse().ok()).collect();
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

/// Replays every log on the disk; returns the declared keys they remember. Chunks that no table holds go to the hot buffer and are measured again.
///
/// # Errors
/// `Kind::Corrupt` naming segment and offset; `Kind::Unavailable` when files cannot be read.
pub fn replay_logs(
    shared: &Shared,
    wal: &Path,
    measure: Measure,
    recovery: &mut Recovery,
    progress: &impl Fn(Recovery),
) -> Result<Vec<Remembered>> {
    let failed = |error| Error::new(ErrorKind::Unavailable, "log cannot be read").with_source(error);
    let disk = &*shared.disk;
    let lanes = lanes(disk, wal)?;
    for lane in &lanes {
        let folder = wal.join(lane.to_string());
        for number in segment::list(disk, &folder).map_err(failed)? {
            recovery.bytes_total += disk.len(&segment::path(&folder, number)).map_err(failed)?;
        }
    }
    let mut keys: Vec<Remembered> = Vec::new();
    for lane in lanes {
        let folder = wal.join(lane.to_string());
        let tail = replay_log(shared, lane, &folder, measure, &mut keys, recovery, progress)?;
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
    keys.extend(bucket::take_over(shared, measure, &mut recovery, &progress).await?);
    // They age anew from here: by how much is known to no clock.
    let now_ns = shared.steady_ns();
    shared.keys.remember(now_ns, keys.into_iter().map(|(tenant, _, key)| (tenant, now_ns, key)));
    Ok(())
}

fn replay_log(
    shared: &Shared,
    lane: usize,
    folder: &Path,
    measure: Measure,
    known_keys: &mut Vec<Remembered>,
    recovery: &mut Recovery,
    progress: &impl Fn(Recovery),
) -> Result<Tail> {
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
        let (meta, batch) = replay::decode(place, header, payload)?;
        segments.entry(number).or_default().note(header.seq, &meta);
        take.frame(header.seq, &meta, batch, recovery)
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
    let beside = idempotency::read_beside(disk, folder).map_err(failed)?;
    let gathered = faults::io("replay.before_keys").and_then(|()| {
        idempotency::gather_beside(disk, folder, &beside, shared.options.idempotency_keys_max)
    });
    // Every key is in a file as before. A disk that is full must not keep the log from being read (F16).
    if let Err(error) = gathered {
        tracing::warn!(lane, %error, "the declared keys beside the log stay in many files until the next start");
    }
    known_keys.extend(beside);
    known_keys.extend(take.keys);
    let ledger = Ledger::new(
        Arc::clone(&shared.disk),
        folder.to_owned(),
        Arc::clone(&writer),
        segments,
        Arc::clone(&shared.wal_bytes),
        shared.options.wal_segment_bytes,
    );
    progress(*recovery);
    Ok(Tail {
        ledger: Arc::new(ledger),
        last_segment: summary.last_segment,
        last_seq: summary.last_seq.max(take.last_seq),
        epoch: summary.epoch,
        next_rows: take.next_rows,
    })
}
