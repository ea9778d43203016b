//! Looking at what is stored, without an engine: a log, a segment, a table.
//!
//! Nothing here prints a row's content (P2): only what a row is counted, named and numbered by.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use object_store::local::LocalFileSystem;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::commit::TableLog;
use crate::disk::LocalDisk;
use crate::error::{Error, Kind, Result};
use crate::wal::frame::Read;
use crate::wal::{replay, salvage};

fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(Kind::Unavailable, "cannot be read or printed").with_source(error)
}

/// Lists the frames of a log's folder (`DATA/wal/0`), one a line, and how the log ends.
///
/// # Errors
/// `Kind::Corrupt` naming the place, as at a start; `Kind::Unavailable` when files do not read.
pub fn wal(folder: &Path, out: &mut dyn Write) -> Result<()> {
    let mut rows = 0;
    let summary = replay::replay(
        &LocalDisk,
        folder,
        &salvage::known(&LocalDisk, folder)?,
        |place, header, payload| {
            let segment = place.segment;
            if payload.is_empty() {
                writeln!(
                    out,
                    "segment {segment} frame {} heartbeat durable {}",
                    header.seq, header.durable_seq
                )
                .map_err(failed)?;
                return Ok(());
            }
            let meta = match replay::decode(place, header, payload)? {
                Read::Known(meta, _) => meta,
                Read::Newer(envelope) => {
                    let (seq, table, count) = (header.seq, envelope.table, envelope.row_count);
                    return writeln!(
                        out,
                        "segment {segment} frame {seq} table {table} rows {count} of a newer build"
                    )
                    .map_err(failed);
                }
            };
            rows += meta.row_count;
            writeln!(
                out,
                "segment {segment} frame {} epoch {} durable {} bytes {} table {} rows {} first {}{}",
                header.seq,
                header.epoch,
                header.durable_seq,
                header.payload_len,
                meta.table,
                meta.row_count,
                meta.first_seq,
                if meta.idempotency.is_some() { " declared-key" } else { "" },
            )
            .map_err(failed)
        },
    )?;
    let tail = match summary.torn {
        Some((segment, at)) => format!("torn tail in segment {segment} at offset {at}, never acknowledged"),
        None => "clean end".into(),
    };
    writeln!(out, "last frame {}, {rows} rows, {tail}", summary.last_seq).map_err(failed)
}

/// Describes a Parquet segment: rows, row groups, columns with their bytes.
///
/// # Errors
/// `Kind::Corrupt` when the file is no Parquet file, `Kind::Unavailable` when it does not read.
pub fn segment(path: &Path, out: &mut dyn Write) -> Result<()> {
    let file = std::fs::File::open(path).map_err(failed)?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .map_err(|error| Error::new(Kind::Corrupt, "segment does not read").with_source(error))?;
    let metadata = reader.metadata();
    let rows = metadata.file_metadata().num_rows();
    writeln!(out, "{rows} rows in {} row groups", metadata.num_row_groups()).map_err(failed)?;
    let columns = metadata.file_metadata().schema_descr().num_columns();
    for column in 0..columns {
        let chunks = || metadata.row_groups().iter().map(|group| group.column(column));
        let bytes: i64 = chunks().map(|chunk| chunk.compressed_size()).sum();
        let name = chunks().next().map(|chunk| chunk.column_path().string()).unwrap_or_default();
        let bloom =
            if chunks().any(|chunk| chunk.bloom_filter_offset().is_some()) { " bloom filter" } else { "" };
        let each = if rows == 0 { 0.0 } else { bytes as f64 / rows as f64 };
        writeln!(out, "{name}: {bytes} bytes, {each:.2} a row{bloom}").map_err(failed)?;
    }
    Ok(())
}

/// Describes a table's folder (`DATA/store/tenant/T/D`): version, transactions, live files.
///
/// # Errors
/// `Kind::Corrupt` when its log cannot be, `Kind::Unavailable` when it does not read.
pub async fn table(folder: &Path, out: &mut (dyn Write + Send)) -> Result<()> {
    let parent = folder.parent().ok_or_else(|| Error::new(Kind::Invalid, "a table lies in a folder"))?;
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let store = LocalFileSystem::new_with_prefix(parent).map_err(failed)?;
    let state = TableLog::new(Arc::new(store), name).load().await?;
    let Some(version) = state.version else {
        return Err(Error::new(Kind::NotFound, "no table has a commit in this folder"));
    };
    let kind = state.kind()?.map_or("", |kind| kind.as_str());
    let rows: u64 = state.files.iter().map(|file| file.rows).sum();
    let bytes: u64 = state.files.iter().map(|file| file.bytes).sum();
    writeln!(out, "{kind}, version {version}: {rows} rows, {bytes} bytes in {} files", state.files.len())
        .map_err(failed)?;
    let mut txns: Vec<_> = state.txns.iter().collect();
    txns.sort();
    for (app, version) in txns {
        writeln!(out, "transaction {app}: {version}").map_err(failed)?;
    }
    for file in state.files.iter() {
        writeln!(out, "{}: {} rows, {} bytes", file.path, file.rows, file.bytes).map_err(failed)?;
    }
    Ok(())
}

/// Decodes a frame from untrusted bytes, as a replay would; for the fuzzer.
#[doc(hidden)]
pub fn decode_frame(bytes: &[u8]) -> Option<usize> {
    let (header, payload) = crate::wal::frame::Header::frame(bytes)?;
    crate::wal::frame::decode(payload).ok().map(|(_, batch)| batch.num_rows() + header.seq as usize % 2)
}

/// Encodes a chunk as a frame; for benches.
#[doc(hidden)]
pub fn encode_frame(out: &mut Vec<u8>, table: &crate::record::TableId, chunk: &crate::record::Clean) {
    let meta = crate::wal::frame::Meta {
        table: table.clone(),
        kind: chunk.kind(),
        first_seq: 0,
        row_count: chunk.row_count() as u64,
        scrub_version: 0,
        appended_ns: 0,
        idempotency: None,
    };
    let header = crate::wal::frame::Header {
        version: crate::wal::frame::VERSION,
        segment: 1,
        seq: 1,
        epoch: 1,
        durable_seq: 0,
        payload_len: 0,
        payload_crc: 0,
    };
    crate::wal::frame::encode(out, header, &meta, chunk.batch()).expect("a bench's chunk fits a frame");
}

/// Encodes a chunk as a segment; for benches.
#[doc(hidden)]
#[must_use]
pub fn encode_segment(chunk: &crate::record::Clean) -> bytes::Bytes {
    encode(chunk).1.bytes
}

/// Encodes a chunk as a segment and reads it back, as a seal does; for benches.
#[doc(hidden)]
#[must_use]
pub fn read_back_segment(chunk: &crate::record::Clean) -> bytes::Bytes {
    let (rows, written) = encode(chunk);
    let expected = crate::segment::Fingerprint::of(&rows);
    crate::segment::check("bench", &written, &rows.schema(), expected, &std::sync::atomic::AtomicU64::new(0))
        .expect("what was encoded reads back");
    written.bytes
}

fn encode(chunk: &crate::record::Clean) -> (arrow::array::RecordBatch, crate::segment::Written) {
    let columns = crate::record::fit::Columns::new(chunk.kind());
    let (batch, added) = columns.fit(chunk.batch().clone());
    let columns = columns.with_added(&added);
    let at = crate::record::fit::Coordinates { writer: "bench-0", first_seq: 0 };
    let rows = crate::record::fit::to_rows(&batch, columns.schema(), at);
    let written = crate::segment::write(chunk.kind(), &rows, 64 * 1024).expect("a bench's chunk encodes");
    (rows, written)
}
