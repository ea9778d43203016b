//! `GET /api/v1/correlations/{correlation_id}`: everything that carries one correlation id, oldest first.

use datafusion::logical_expr::{col, lit};
use storage::record::{Field, Kind, json_text};

use super::event_out::{Attributes, key};
use super::{Call, event_out, json, page, span_out, trace};
use crate::query::Answer;
use crate::refusal::Refusal;

/// Rows of each kind at most: what a list may hold.
const ROWS_MAX: usize = 10_000;

/// Answers one correlation; its lists are empty where nothing carries the id.
///
/// # Errors
/// As for any query.
pub async fn answer(call: &Call<'_>) -> Result<Answer, Refusal> {
    call.params()?.finish()?;
    let id = call.path_id();
    let mut out = b"{\"correlation_id\":".to_vec();
    json_text::string(&mut out, id);
    for (name, kind) in
        [("events", Kind::Events), ("spans", Kind::Spans), ("logs", Kind::Logs), ("audit", Kind::Audit)]
    {
        key(&mut out, name);
        out.push(b'[');
        let mut batches = Vec::new();
        for snapshot in call.view.of_kind(kind) {
            let condition = col(Field::CorrelationId.name()).eq(lit(id));
            batches.extend(page::collect(call, snapshot, vec![condition], true, ROWS_MAX).await?);
        }
        for (position, (batch, row)) in trace::in_order(&batches).into_iter().take(ROWS_MAX).enumerate() {
            let Some(batch) = batches.get(batch) else { continue };
            if position > 0 {
                out.push(b',');
            }
            if kind == Kind::Spans {
                span_out::span(&mut out, batch, row, &Attributes::of(kind, batch.schema_ref()));
            } else {
                out.extend_from_slice(&event_out::rows(kind, &[batch.slice(row, 1)]));
            }
        }
        out.push(b']');
    }
    out.push(b'}');
    Ok(json(out))
}
