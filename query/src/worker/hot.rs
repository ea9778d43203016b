//! Hot rows on their way to a worker: projected, filtered by what the scan asks, and encoded piece by piece.
//!
//! Chunks are as requests were: one row or a hundred thousand. What goes over the socket at once is neither: small
//! chunks are gathered, large ones are sliced, so that the server holds a bounded piece and a worker waits for few.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{Int64Type, Schema, SchemaRef};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use storage::reader::Snapshot;

use crate::prune::Bounds;
use crate::refusal::Refusal;

/// Rows of one piece.
pub const PIECE_ROWS_MAX: usize = 8_192;
/// Bytes of one piece before encoding, unless one row alone is longer.
pub const PIECE_BYTES_MAX: usize = 1 << 20;
/// Chunks that one piece looks at: many may have nothing that matches.
const PIECE_CHUNKS_MAX: usize = 4_096;

/// What a scan wants of the rows.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The columns, by their places in the schema; `None` for all.
    pub projection: Option<Vec<usize>>,
    /// What must hold of them. Rows that cannot match are left out where that is cheap to see.
    pub bounds: Bounds,
}

/// A place among the hot rows: a chunk, and a row in it.
pub type Place = (usize, usize);

/// The next piece from `at` on as an Arrow IPC stream, empty where nothing is left, and where to go on.
///
/// # Errors
/// Our bug: rows that cannot be encoded.
pub fn take(snapshot: &Snapshot, wanted: &Wanted, at: Place) -> Result<(Vec<u8>, Option<Place>), Refusal> {
    let (mut parts, mut rows, mut bytes) = (Vec::new(), 0, 0);
    let (mut chunk, mut row) = at;
    let last = chunk.saturating_add(PIECE_CHUNKS_MAX);
    while chunk < snapshot.hot.len() && chunk < last && rows < PIECE_ROWS_MAX && bytes < PIECE_BYTES_MAX {
        let whole = columns(snapshot, chunk, wanted.projection.as_deref());
        let left = whole.num_rows().saturating_sub(row);
        if left == 0 {
            (chunk, row) = (chunk + 1, 0);
            continue;
        }
        let (part, part_bytes) =
            slice(&whole, row, left.min(PIECE_ROWS_MAX - rows), PIECE_BYTES_MAX - bytes, rows == 0);
        if part.num_rows() == 0 {
            break;
        }
        let begin = row;
        row += part.num_rows();
        let part = filtered(snapshot, chunk, begin, &part, &wanted.bounds)?;
        if part.num_rows() > 0 {
            rows += part.num_rows();
            bytes += part_bytes;
            parts.push(part);
        }
    }
    let next = (chunk < snapshot.hot.len()).then_some((chunk, row));
    let Some(first) = parts.first() else { return Ok((Vec::new(), next)) };
    let schema = first.schema();
    let batch = if parts.len() == 1 {
        first.clone()
    } else {
        concat_batches(&schema, &parts).map_err(|_| Refusal::bug())?
    };
    Ok((encode(&schema, Some(&batch))?, next))
}

/// The columns of a chunk at these places: the one spot that knows how hot rows are kept.
fn columns(snapshot: &Snapshot, chunk: usize, places: Option<&[usize]>) -> RecordBatch {
    let rows = snapshot.hot.get(chunk).expect("the place was looked at");
    rows.project(&snapshot.schema, places)
}

/// At most `rows_max` rows from `at` on that are at most `bytes_max` long; one row whatever its length where
/// `must_take`.
fn slice(
    batch: &RecordBatch,
    at: usize,
    rows_max: usize,
    bytes_max: usize,
    must_take: bool,
) -> (RecordBatch, usize) {
    let mut rows = rows_max;
    loop {
        let part = batch.slice(at, rows);
        let bytes = slice_bytes(&part);
        if bytes <= bytes_max || (rows == 1 && must_take) {
            return (part, bytes);
        }
        if rows == 1 {
            return (batch.slice(at, 0), 0);
        }
        rows /= 2;
    }
}

/// Bytes that the rows of a slice take by themselves.
pub fn slice_bytes(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or(0)).sum()
}

/// Leaves out the rows of a slice that cannot match.
fn filtered(
    snapshot: &Snapshot,
    chunk: usize,
    begin: usize,
    part: &RecordBatch,
    bounds: &Bounds,
) -> Result<RecordBatch, Refusal> {
    if *bounds == Bounds::default() {
        return Ok(part.clone());
    }
    let schema = &snapshot.schema;
    let column = |name: &str| {
        let at = schema.index_of(name).ok()?;
        Some(Arc::clone(columns(snapshot, chunk, Some(&[at])).slice(begin, part.num_rows()).column(0)))
    };
    let mut keep = vec![true; part.num_rows()];
    if let Some(times) = column("time_ns").as_ref().and_then(|times| times.as_primitive_opt::<Int64Type>()) {
        for (row, keep) in keep.iter_mut().enumerate() {
            // A null says nothing: it stays, and the query itself decides.
            *keep &= times.is_null(row) || (bounds.time_ns.0..=bounds.time_ns.1).contains(&times.value(row));
        }
    }
    if let Some(wanted) = &bounds.sources
        && let Some(sources) = column("source").as_ref().and_then(|sources| sources.as_string_opt::<i32>())
    {
        for (row, keep) in keep.iter_mut().enumerate() {
            *keep &= sources.is_null(row) || wanted.iter().any(|one| one == sources.value(row));
        }
    }
    filter_record_batch(part, &BooleanArray::from(keep)).map_err(|_| Refusal::bug())
}

/// A schema as an Arrow IPC stream without rows.
///
/// # Errors
/// Our bug: a schema that cannot be encoded.
pub fn schema(schema: &Schema) -> Result<Vec<u8>, Refusal> {
    encode(schema, None)
}

fn encode(schema: &Schema, batch: Option<&RecordBatch>) -> Result<Vec<u8>, Refusal> {
    let encoded = || {
        let mut writer = StreamWriter::try_new(Vec::new(), schema)?;
        if let Some(batch) = batch {
            writer.write(batch)?;
        }
        writer.into_inner()
    };
    encoded().map_err(|_| Refusal::bug())
}

/// Reads a stream back: its schema, and its rows where there are any.
///
/// # Errors
/// Our bug: the server sent no stream.
pub fn decode(bytes: &[u8]) -> Result<(SchemaRef, Option<RecordBatch>), Refusal> {
    let mut reader = StreamReader::try_new(bytes, None).map_err(|_| Refusal::bug())?;
    let batch = reader.next().transpose().map_err(|_| Refusal::bug())?;
    Ok((reader.schema(), batch))
}

#[cfg(test)]
mod tests {
    use storage::record::{Draft, Field, Kind};

    use super::{Wanted, decode, slice_bytes, take};
    use crate::fixture::{Fixture, Sealed, T0, row};
    use crate::prune::Bounds;

    fn all() -> Wanted {
        Wanted { projection: None, bounds: Bounds::default() }
    }

    /// Rows and bytes of each piece.
    fn pieces(snapshot: &storage::reader::Snapshot, wanted: &Wanted) -> Vec<(usize, usize)> {
        let (mut at, mut pieces) = (Some((0, 0)), Vec::new());
        while let Some(place) = at {
            let (bytes, next) = take(snapshot, wanted, place).unwrap();
            if !bytes.is_empty() {
                let batch = decode(&bytes).unwrap().1.expect("rows");
                pieces.push((batch.num_rows(), slice_bytes(&batch)));
            }
            at = next;
        }
        pieces
    }

    async fn table(chunks: usize, rows: i64, message: usize) -> Fixture {
        let mut fixture = Fixture::new();
        let chunk = |draft: &mut Draft| {
            for at in 0..rows {
                row(draft, T0 + at, if at % 2 == 0 { "even" } else { "odd" }, |d| {
                    d.set_text(Field::Message, &"m".repeat(message));
                });
            }
        };
        let chunks: Vec<_> = (0..chunks).map(|_| (Sealed::No, &chunk as &dyn Fn(&mut Draft))).collect();
        fixture.table("a", "events", Kind::Events, &chunks).await;
        fixture
    }

    // B1: many small chunks are few pieces, and a large one is many.
    #[tokio::test]
    async fn pieces_have_a_bound_whatever_chunks_are_like() {
        let small = table(300, 1, 1).await;
        assert_eq!(pieces(&small.snapshots[0], &all()).len(), 1);
        let large = table(1, 20_000, 1).await;
        let only_source = Wanted { projection: Some(vec![0]), bounds: Bounds::default() };
        let of_large = pieces(&large.snapshots[0], &only_source);
        assert!(of_large.iter().all(|(rows, _)| *rows <= 8_192), "{of_large:?}");
        assert_eq!(of_large.iter().map(|(rows, _)| rows).sum::<usize>(), 20_000);
        let wide = table(2, 500, 20_000).await;
        let of_wide = pieces(&wide.snapshots[0], &all());
        assert!(of_wide.iter().all(|(_, bytes)| *bytes <= (1 << 20)), "{of_wide:?}");
        assert_eq!(of_wide.iter().map(|(rows, _)| rows).sum::<usize>(), 1_000);
    }

    // B1: chunks of which nothing matches end a piece, too.
    #[tokio::test]
    async fn a_piece_looks_at_so_many_chunks() {
        let mut snapshot = table(1, 1, 1).await.snapshots.remove(0);
        snapshot.hot = vec![snapshot.hot[0].clone(); 5_000];
        let none = Wanted { projection: Some(vec![0]), bounds: Bounds { time_ns: (0, 1), sources: None } };
        assert_eq!(take(&snapshot, &none, (0, 0)).unwrap(), (Vec::new(), Some((4_096, 0))));
        assert_eq!(take(&snapshot, &none, (4_096, 0)).unwrap(), (Vec::new(), None));
    }

    // Q1: what is left out cannot match.
    #[tokio::test]
    async fn rows_that_cannot_match_are_left_out() {
        let fixture = table(3, 100, 1).await;
        let rows = |bounds: Bounds| {
            let wanted = Wanted { projection: Some(vec![1]), bounds };
            pieces(&fixture.snapshots[0], &wanted).iter().map(|(rows, _)| rows).sum::<usize>()
        };
        let sources = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(rows(Bounds { time_ns: (T0 + 10, T0 + 19), sources: None }), 30);
        assert_eq!(rows(Bounds { time_ns: (i64::MIN, i64::MAX), sources: sources(&["odd"]) }), 150);
        assert_eq!(rows(Bounds { time_ns: (T0 + 10, T0 + 19), sources: sources(&["odd", "x"]) }), 15);
        assert_eq!(rows(Bounds { time_ns: (0, 1), sources: None }), 0);
    }
}
