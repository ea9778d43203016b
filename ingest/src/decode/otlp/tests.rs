//! What table C of the bad inputs asks of both encodings, and what real clients send.

mod agreement;
mod json_records;
mod message;
mod proto_records;
mod real_clients;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use storage::record::{Clean, Draft, Kind};

use crate::decode::{Context, Decoded, IdSource, Limits, Precision, Refused};

/// 2027-01-15T08:00:00Z: after the recordings of real clients were made.
const NOW_NS: i64 = 1_800_000_000_000_000_000;

type Decoder = fn(&[u8], &mut Context<'_>, &mut Draft) -> Result<Decoded, Refused>;

/// Decodes into a fresh draft; a refused body must leave no row.
fn decode_within(
    limits: &Limits,
    decoder: Decoder,
    kind: Kind,
    body: &[u8],
) -> Result<(Decoded, RecordBatch), Refused> {
    let mut ids = IdSource::default();
    let mut ctx = Context {
        now_ns: NOW_NS,
        oldest_ns: i64::MIN,
        limits,
        precision: Precision::default(),
        ids: &mut ids,
    };
    let mut draft = Draft::new(kind);
    let result = decoder(body, &mut ctx, &mut draft);
    match result {
        Ok(decoded) => {
            assert_eq!(decoded.accepted as usize, draft.row_count());
            assert!(decoded.rejected.len() <= decoded.rejected_count as usize);
            Ok((decoded, Clean::attest(&mut draft, 0).batch().clone()))
        }
        Err(refused) => {
            assert_eq!(draft.row_count(), 0);
            assert!(matches!(refused.status, 400 | 413), "{refused:?}");
            Err(refused)
        }
    }
}

fn decode(decoder: Decoder, kind: Kind, body: &[u8]) -> Result<(Decoded, RecordBatch), Refused> {
    decode_within(&Limits::default(), decoder, kind, body)
}

/// The row's text in a column; `None` where it is null or the column is not there.
fn text<'b>(batch: &'b RecordBatch, column: &str, row: usize) -> Option<&'b str> {
    let column = batch.column_by_name(column)?.as_string::<i32>();
    (!column.is_null(row)).then(|| column.value(row))
}

/// The row's integer in a column; `None` where it is null or the column is not there.
fn int(batch: &RecordBatch, column: &str, row: usize) -> Option<i64> {
    let column = batch.column_by_name(column)?.as_primitive::<Int64Type>();
    (!column.is_null(row)).then(|| column.value(row))
}
