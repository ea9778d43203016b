//! One frame of the log: a header, what the chunk is, and the chunk.
//!
//! ```text
//! offset  0  magic        "FMW1"
//!         4  header_crc   CRC32C of bytes 8..48, and of the version before them where it is a later one
//!         8  segment      number of the segment it was written for: stale bytes never validate
//!        16  seq          number of the frame in its log, contiguous
//!        24  epoch        how often this log was opened before
//!        32  durable_seq  the highest frame known to be synced when this one was written
//!        40  payload_len
//!        44  payload_crc  CRC32C of the payload
//!        48  payload      u32 length of the meta, the meta as JSON, the chunk as an Arrow IPC stream
//! ```
//! A long chunk is several batches of one stream, its rows in order: encoding holds a copy of one batch at a time.
//! A frame is valid as a whole or not at all, so a chunk is whole or absent after a crash, however many batches.
//! All integers little-endian. A frame without a payload is a heartbeat: it carries only `durable_seq`.
//! The layout is listed in docs/FORMATS.md. A change of what a payload holds changes the last character of the magic, and
//! nothing else of the header: a build that does not know the version knows where the frame ends, and by the meta whose
//! rows it holds, so that it can leave it where it is ([`Read::Newer`]).

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::StreamWriter;
use base64::Engine as _;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind as ErrorKind, Result};
use crate::record::{Dataset, Kind, TableId, Tenant};
use crate::record::{schema, sparse};
use crate::writer::Idempotency;

/// Bytes of a header.
pub const HEADER_BYTES: usize = 48;

/// The largest payload a frame may have. Chosen: four times the inflated body, far below a segment's reach.
pub const PAYLOAD_BYTES_MAX: usize = 256 << 20;

/// Bytes of a chunk that are encoded as one batch. Chosen: a usual chunk is one, and the copy that encoding makes
/// of it stays small beside a long one.
pub const BATCH_BYTES_MAX: usize = 1 << 20;

/// What a frame of any version begins with.
pub const MARK: [u8; 3] = *b"FMW";

/// The version that this build writes, as it stands behind [`MARK`].
pub const VERSION: u8 = b'1';

/// A decoded header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What its payload is written as: [`VERSION`], or that of a newer build.
    pub version: u8,
    /// The segment it was written for.
    pub segment: u64,
    /// Its number in the log.
    pub seq: u64,
    /// The log's epoch.
    pub epoch: u64,
    /// The highest frame known to be synced when it was written.
    pub durable_seq: u64,
    /// Bytes of payload.
    pub payload_len: u32,
    /// Checksum of the payload.
    pub payload_crc: u32,
}

impl Header {
    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..3].copy_from_slice(&MARK);
        bytes[3] = self.version;
        bytes[8..16].copy_from_slice(&self.segment.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.seq.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.durable_seq.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.payload_len.to_le_bytes());
        bytes[44..48].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = Self::crc(self.version, &bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header's checksum. It covers the version, but for the first one, which was written before there were any:
    /// rot of that one byte must not make a frame of this build look like a newer one's (W2).
    fn crc(version: u8, behind: &[u8]) -> u32 {
        let of_version = if version == VERSION { 0 } else { crc32c::crc32c(&[version]) };
        crc32c::crc32c_append(of_version, behind)
    }

    /// Reads a header; `None` where the bytes are none.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..HEADER_BYTES)?;
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let version = bytes[3];
        let is_version = version >= VERSION && version.is_ascii_alphanumeric();
        if bytes[..3] != MARK || !is_version || u32_at(4) != Self::crc(version, &bytes[8..]) {
            return None;
        }
        let header = Self {
            version,
            segment: u64_at(8),
            seq: u64_at(16),
            epoch: u64_at(24),
            durable_seq: u64_at(32),
            payload_len: u32_at(40),
            payload_crc: u32_at(44),
        };
        let is_bounded =
            header.payload_len as usize <= PAYLOAD_BYTES_MAX && i64::try_from(header.seq).is_ok();
        is_bounded.then_some(header)
    }

    /// The frame at the start of `bytes`: its header and payload, both checked; `None` where there is none.
    #[must_use]
    pub fn frame(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let header = Self::decode(bytes)?;
        let payload = bytes.get(HEADER_BYTES..HEADER_BYTES + header.payload_len as usize)?;
        (crc32c::crc32c(payload) == header.payload_crc).then_some((header, payload))
    }
}

/// What a frame's chunk is.
#[derive(Clone, Debug, PartialEq)]
pub struct Meta {
    /// The table it belongs to.
    pub table: TableId,
    /// What its rows are.
    pub kind: Kind,
    /// Number of the first row.
    pub first_seq: u64,
    /// Rows.
    pub row_count: u64,
    /// Version of the scrub rules it passed.
    pub scrub_version: u64,
    /// When it was appended, nanoseconds since 1970 UTC.
    pub appended_ns: i64,
    /// The declared key it came under.
    pub idempotency: Option<Idempotency>,
}

#[derive(Serialize, Deserialize)]
struct MetaText<'a> {
    tenant: &'a str,
    dataset: &'a str,
    kind: &'a str,
    first_seq: u64,
    row_count: u64,
    scrub_version: u64,
    appended_ns: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    idempotency: Option<IdempotencyText>,
}

/// Whose rows a frame holds that this build does not read, and which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The table they belong to.
    pub table: TableId,
    /// Number of the first row.
    pub first_seq: u64,
    /// Rows.
    pub row_count: u64,
}

/// What every version's meta says.
#[derive(Deserialize)]
struct EnvelopeText<'a> {
    tenant: &'a str,
    dataset: &'a str,
    kind: &'a str,
    first_seq: u64,
    row_count: u64,
}

/// A frame's payload as it is read.
#[derive(Debug)]
pub enum Read {
    /// A chunk.
    Known(Meta, RecordBatch),
    /// Rows of a newer build.
    Newer(Envelope),
}

/// An idempotency record as it is kept, in frames and beside trimmed segments.
#[derive(Clone, Serialize, Deserialize)]
pub struct IdempotencyText {
    key: String,
    fingerprint: String,
    status: u16,
    reply: String,
}

impl From<&Idempotency> for IdempotencyText {
    fn from(idempotency: &Idempotency) -> Self {
        let base64 = &base64::engine::general_purpose::STANDARD;
        Self {
            key: idempotency.key.to_string(),
            fingerprint: base64.encode(idempotency.fingerprint),
            status: idempotency.status,
            reply: base64.encode(&idempotency.reply),
        }
    }
}

impl TryFrom<IdempotencyText> for Idempotency {
    type Error = Error;

    fn try_from(text: IdempotencyText) -> Result<Self> {
        let base64 = &base64::engine::general_purpose::STANDARD;
        let broken = || Error::new(ErrorKind::Corrupt, "idempotency record is not what was written");
        let fingerprint = base64.decode(text.fingerprint).map_err(|_| broken())?;
        Ok(Self {
            key: text.key.into(),
            fingerprint: fingerprint.try_into().map_err(|_| broken())?,
            status: text.status,
            reply: base64.decode(text.reply).map_err(|_| broken())?.into(),
        })
    }
}

/// Appends a frame with a chunk to `out`.
///
/// # Errors
/// `Kind::Invalid` when the payload is over [`PAYLOAD_BYTES_MAX`]; `out` is as before then.
pub fn encode(out: &mut Vec<u8>, mut header: Header, meta: &Meta, batch: &RecordBatch) -> Result<()> {
    let start = out.len();
    out.resize(start + HEADER_BYTES + 4, 0);
    let text = MetaText {
        tenant: if meta.table.tenant == Tenant::system() { "" } else { meta.table.tenant.as_str() },
        dataset: meta.table.dataset.as_str(),
        kind: meta.kind.as_str(),
        first_seq: meta.first_seq,
        row_count: meta.row_count,
        scrub_version: meta.scrub_version,
        appended_ns: meta.appended_ns,
        idempotency: meta.idempotency.as_ref().map(IdempotencyText::from),
    };
    serde_json::to_writer(&mut *out, &text).expect("plain data becomes JSON");
    let meta_len =
        u32::try_from(out.len() - start - HEADER_BYTES - 4).expect("a meta is a few hundred bytes");
    out[start + HEADER_BYTES..start + HEADER_BYTES + 4].copy_from_slice(&meta_len.to_le_bytes());
    // Only what a client sent makes this long: room for all of it at once, not doubled up to it.
    let bytes = chunk_bytes(batch);
    if bytes > BATCH_BYTES_MAX {
        out.reserve_exact(bytes + bytes / 16);
    }
    let written = write_batches(out, batch, bytes);
    if let Err(error) = written {
        out.truncate(start);
        return Err(Error::new(ErrorKind::Bug, "chunk does not encode").with_source(error));
    }
    let payload_len = out.len() - start - HEADER_BYTES;
    if payload_len > PAYLOAD_BYTES_MAX {
        out.truncate(start);
        return Err(Error::new(
            ErrorKind::Invalid,
            format!("chunk of {payload_len} bytes exceeds the frame's {PAYLOAD_BYTES_MAX}"),
        ));
    }
    header.payload_len = u32::try_from(payload_len).expect("checked above");
    header.payload_crc = crc32c::crc32c(&out[start + HEADER_BYTES..]);
    out[start..start + HEADER_BYTES].copy_from_slice(&header.encode());
    Ok(())
}

/// What a chunk's columns hold, in bytes: about what its frame takes.
#[must_use]
pub fn chunk_bytes(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or(0)).sum()
}

fn write_batches(
    out: &mut Vec<u8>,
    batch: &RecordBatch,
    bytes: usize,
) -> std::result::Result<(), arrow::error::ArrowError> {
    let mut writer = StreamWriter::try_new(out, batch.schema_ref())?;
    let rows = batch.num_rows();
    let rows_each = rows.div_ceil(bytes.div_ceil(BATCH_BYTES_MAX).max(1)).max(1);
    if rows_each >= rows {
        writer.write(batch)?;
    } else {
        for from in (0..rows).step_by(rows_each) {
            writer.write(&batch.slice(from, rows_each.min(rows - from)))?;
        }
    }
    writer.finish()
}

fn broken() -> Error {
    Error::new(ErrorKind::Corrupt, "frame payload is not what was written")
}

/// A payload's meta, as text, and its chunk.
fn split(payload: &[u8]) -> Result<(&[u8], &[u8])> {
    let (len, rest) = payload.split_first_chunk().ok_or_else(broken)?;
    rest.split_at_checked(u32::from_le_bytes(*len) as usize).ok_or_else(broken)
}

fn table(tenant: &str, dataset: &str) -> Result<TableId> {
    let tenant = if tenant.is_empty() { Tenant::system() } else { Tenant::parse(tenant)? };
    Ok(TableId::new(tenant, Dataset::parse(dataset)?))
}

/// Reads a frame's payload, or whose it is.
///
/// # Errors
/// `Kind::Corrupt` when it is not what [`encode`] or a newer build writes, although its checksum holds.
pub fn read(version: u8, payload: &[u8]) -> Result<Read> {
    let (text, _) = split(payload)?;
    let envelope: EnvelopeText<'_> =
        serde_json::from_slice(text).map_err(|error| broken().with_source(error))?;
    if version == VERSION && Kind::parse(envelope.kind).is_some() {
        return decode(payload).map(|(meta, batch)| Read::Known(meta, batch));
    }
    let EnvelopeText { first_seq, row_count, .. } = envelope;
    first_seq.checked_add(row_count).ok_or_else(broken)?;
    Ok(Read::Newer(Envelope { table: table(envelope.tenant, envelope.dataset)?, first_seq, row_count }))
}

/// Reads the payload of a frame of this build's version.
///
/// # Errors
/// `Kind::Corrupt` when it is not what [`encode`] writes, although its checksum holds.
pub fn decode(payload: &[u8]) -> Result<(Meta, RecordBatch)> {
    let (text, chunk) = split(payload)?;
    let text: MetaText<'_> = serde_json::from_slice(text).map_err(|error| broken().with_source(error))?;
    let meta = Meta {
        table: table(text.tenant, text.dataset)?,
        kind: Kind::parse(text.kind).ok_or_else(broken)?,
        first_seq: text.first_seq,
        row_count: text.row_count,
        scrub_version: text.scrub_version,
        appended_ns: text.appended_ns,
        idempotency: text.idempotency.map(Idempotency::try_from).transpose()?,
    };
    let batch = read_chunk(chunk)?.ok_or_else(broken)?;
    // A checksum that holds is no proof of who wrote: what goes on from here may rely on what a chunk is.
    let last = meta.first_seq.checked_add(meta.row_count).and_then(|last| i64::try_from(last).ok());
    if batch.num_rows() as u64 != meta.row_count || last.is_none() || !schema::is_chunk(meta.kind, &batch) {
        return Err(broken());
    }
    Ok((meta, batch))
}

/// Arrow's decoder trusts no length to allocate by, but does not check every offset against the message either: on
/// those it panics.
fn read_chunk(chunk: &[u8]) -> Result<Option<RecordBatch>> {
    let broken = |why: String| Error::new(ErrorKind::Corrupt, "frame's chunk does not read").with_source(why);
    std::panic::catch_unwind(|| {
        let (mut decoder, mut rest, mut batches) = (StreamDecoder::new(), Buffer::from(chunk), Vec::new());
        while let Some(batch) = decoder.decode(&mut rest)? {
            batches.push(batch);
        }
        Ok(sparse::join(&batches))
    })
    .map_err(|_| broken("an offset lies outside of it".into()))?
    .map_err(|error: arrow::error::ArrowError| broken(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::{Header, VERSION};

    // B1: a checksum that holds is no reason to take as much memory as a header says.
    #[test]
    fn a_header_tells_of_no_larger_payload() {
        let told = |payload_len: u32| {
            let header = Header {
                version: VERSION,
                segment: 1,
                seq: 1,
                epoch: 1,
                durable_seq: 0,
                payload_len,
                payload_crc: 0,
            };
            Header::decode(&header.encode()).map(|header| header.payload_len)
        };
        assert_eq!(told(256 << 20), Some(256 << 20));
        assert_eq!(told((256 << 20) + 1), None);
    }
}
