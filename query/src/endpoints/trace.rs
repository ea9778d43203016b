//! `GET /api/v1/traces/{trace_id}`: all spans of one trace, in order of their start.

use std::collections::HashSet;

use arrow::array::RecordBatch;
use datafusion::logical_expr::{col, lit};
use storage::record::{Field, Kind};

use super::event_out::{Attributes, int, text};
use super::{Call, json, page, span_out};
use crate::filters;
use crate::query::Answer;
use crate::refusal::Refusal;

/// Spans of one trace at most: what one JSON reply can hold.
const SPANS_MAX: usize = 100_000;

/// Answers one trace.
///
/// # Errors
/// 404 where no span has that trace id, or it is none.
pub async fn answer(call: &Call<'_>) -> Result<Answer, Refusal> {
    call.params()?.finish()?;
    let not_found = || Refusal::new(404, "trace_not_found", "there is no such trace");
    let id = filters::trace_id(call.path_id()).ok_or_else(not_found)?;
    let mut batches = Vec::new();
    for snapshot in call.view.of_kind(Kind::Spans) {
        let condition = col(Field::TraceId.name()).eq(lit(id.as_str()));
        batches.extend(page::collect(call, snapshot, vec![condition], true, SPANS_MAX + 1).await?);
    }
    let spans = in_order(&batches);
    if spans.is_empty() {
        return Err(not_found());
    }
    if spans.len() > SPANS_MAX {
        return Err(Refusal::query_limit(format!("the trace has more than {SPANS_MAX} spans")));
    }
    let mut out = format!(
        "{{\"trace_id\":\"{id}\",\"complete\":{},\"span_count\":{},\"spans\":[",
        is_complete(&batches),
        spans.len()
    )
    .into_bytes();
    let attributes: Vec<_> =
        batches.iter().map(|batch| Attributes::of(Kind::Spans, batch.schema_ref())).collect();
    for (position, (batch, row)) in spans.into_iter().enumerate() {
        let (Some(batch), Some(attributes)) = (batches.get(batch), attributes.get(batch)) else { continue };
        if position > 0 {
            out.push(b',');
        }
        span_out::span(&mut out, batch, row, attributes);
    }
    out.extend_from_slice(b"]}");
    Ok(json(out))
}

/// (batch, row) of every span in order of start, then id.
pub fn in_order(batches: &[RecordBatch]) -> Vec<(usize, usize)> {
    let mut spans: Vec<(usize, usize)> = batches
        .iter()
        .enumerate()
        .flat_map(|(at, batch)| (0..batch.num_rows()).map(move |row| (at, row)))
        .collect();
    spans.sort_by_key(|(at, row)| {
        batches
            .get(*at)
            .map(|batch| (int(batch, Field::TimeNs.name(), *row), text(batch, Field::SpanId.name(), *row)))
    });
    spans
}

/// Whether there is exactly one root and every parent is there.
fn is_complete(batches: &[RecordBatch]) -> bool {
    let mut ids = HashSet::new();
    let mut parents = Vec::new();
    let mut root_count = 0;
    for batch in batches {
        for row in 0..batch.num_rows() {
            ids.extend(text(batch, Field::SpanId.name(), row));
            match text(batch, Field::ParentSpanId.name(), row) {
                Some(parent) => parents.push(parent),
                None => root_count += 1,
            }
        }
    }
    root_count == 1 && parents.iter().all(|parent| ids.contains(parent))
}
