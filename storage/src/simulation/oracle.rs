//! What clients were told, and whether storage agrees.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::deployment::Storage;
use crate::record::TableId;
use crate::segment;

/// A row as it was found: its id, and where it stands in the evidence.
type Found = (String, String, i64);

/// Everything that clients know.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Rows that were tried, with their event times, by table.
    pub tried: BTreeMap<TableId, BTreeMap<String, i64>>,
    /// Rows that were acknowledged, by table.
    pub acknowledged: BTreeMap<TableId, BTreeSet<String>>,
    /// Event times before which a retention run was begun: such rows may be there or not.
    pub cutoffs: BTreeMap<TableId, i64>,
    /// Rows that a retention run removed.
    pub gone: BTreeSet<String>,
}

/// Reads storage as a query would, and compares.
#[derive(Debug, Default)]
pub struct Oracle {
    files: HashMap<String, Arc<Vec<Found>>>,
}

fn found(batch: &RecordBatch, into: &mut Vec<Found>) {
    let ids = batch.column_by_name("id").expect("rows have ids").as_string::<i32>();
    let writers = batch.column_by_name("writer").expect("rows have writers").as_string::<i32>();
    let seqs = batch.column_by_name("seq").expect("rows have numbers").as_primitive::<Int64Type>();
    for row in 0..batch.num_rows() {
        into.push((ids.value(row).to_owned(), writers.value(row).to_owned(), seqs.value(row)));
    }
}

impl Oracle {
    /// Holds storage to what `ledger` said before the call: every acknowledged row once, no row twice, none that
    /// nobody sent, and rows of one client and writer in the order of their acknowledgement (A3).
    pub async fn check(
        &mut self,
        storage: &Storage,
        objects: &InMemory,
        ledger: &Ledger,
    ) -> Result<(), String> {
        for (table, tried) in &ledger.tried {
            let acknowledged = ledger.acknowledged.get(table).cloned().unwrap_or_default();
            let Some(snapshot) = storage.snapshot(table) else {
                if acknowledged.is_empty() {
                    continue;
                }
                return Err(format!("table {table} is gone with {} acknowledged rows", acknowledged.len()));
            };
            let mut rows: Vec<Found> = Vec::new();
            for batch in &snapshot.hot {
                found(&batch.project(&snapshot.schema, None), &mut rows);
            }
            for file in &snapshot.files {
                let path = format!("{}/{}", table.prefix(), file.path);
                if !self.files.contains_key(&path) {
                    let bytes = objects.get(&Path::from(path.as_str())).await;
                    let bytes = bytes.map_err(|error| format!("a live file is not there: {error}"))?;
                    let bytes = bytes.bytes().await.map_err(|error| error.to_string())?;
                    let mut found_in = Vec::new();
                    let read = segment::read(file, bytes, &snapshot.schema, 8192);
                    for batch in read.map_err(|error| error.to_string())? {
                        found(&batch.map_err(|error| error.to_string())?, &mut found_in);
                    }
                    if found_in.len() as u64 != file.rows {
                        return Err(format!("{path} holds {} rows, not {}", found_in.len(), file.rows));
                    }
                    self.files.insert(path.clone(), Arc::new(found_in));
                }
                rows.extend(self.files[&path].iter().cloned());
            }
            compare(table, &rows, tried, &acknowledged, ledger)?;
        }
        Ok(())
    }
}

fn compare(
    table: &TableId,
    rows: &[Found],
    tried: &BTreeMap<String, i64>,
    acknowledged: &BTreeSet<String>,
    ledger: &Ledger,
) -> Result<(), String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut places: BTreeMap<(&str, i64), &str> = BTreeMap::new();
    let mut by_client: BTreeMap<(&str, &str), Vec<(&str, i64)>> = BTreeMap::new();
    for (id, writer, seq) in rows {
        *counts.entry(id).or_default() += 1;
        if let Some(other) = places.insert((writer, *seq), id) {
            return Err(format!("{table}: rows {other} and {id} both are number {seq} of {writer}"));
        }
        let client = id.split('-').next().unwrap_or_default();
        by_client.entry((writer, client)).or_default().push((id, *seq));
    }
    for (id, count) in &counts {
        if *count != 1 {
            let at: Vec<_> = rows.iter().filter(|row| row.0 == *id).map(|row| (&row.1, row.2)).collect();
            return Err(format!("{table}: row {id} is there {count} times, as {at:?}"));
        }
        if !tried.contains_key(*id) {
            return Err(format!("{table}: nobody sent row {id}"));
        }
        if ledger.gone.contains(*id) {
            return Err(format!("{table}: row {id} was removed and is there"));
        }
    }
    let cutoff = ledger.cutoffs.get(table).copied().unwrap_or(i64::MIN);
    let is_lost = |id: &&String| !counts.contains_key(id.as_str()) && tried[*id] >= cutoff;
    if let Some(lost) = acknowledged.iter().find(is_lost) {
        return Err(format!("{table}: row {lost} was acknowledged and is lost"));
    }
    for ((writer, _), mut rows) in by_client {
        rows.sort_unstable();
        if let Some(pair) = rows.windows(2).find(|pair| pair[0].1 >= pair[1].1) {
            return Err(format!("{table}: {writer} has row {} before {}", pair[1].0, pair[0].0));
        }
    }
    Ok(())
}

/// Objects below a table that are data files.
pub async fn data_files(objects: &InMemory, table: &TableId) -> BTreeSet<String> {
    use futures::TryStreamExt;
    let prefix = Path::from(table.prefix());
    let listed: Vec<_> = objects.list(Some(&prefix)).try_collect().await.unwrap_or_default();
    listed
        .into_iter()
        .map(|object| object.location.to_string())
        .filter(|path| path.ends_with(".parquet") && !path.contains("_delta_log"))
        .collect()
}
