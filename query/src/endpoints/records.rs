//! `GET /api/v1/events` and `/api/v1/logs`: a filtered page of one dataset.

use storage::record::Kind;

use super::{Call, event_out, list, page};
use crate::filters::Filters;
use crate::query::Answer;
use crate::refusal::Refusal;

/// Answers a list of records under `name`.
///
/// # Errors
/// 400 for parameters, 404 for a dataset that is not there, and as for any query.
pub async fn answer(call: &Call<'_>, kind: Kind, name: &str) -> Result<Answer, Refusal> {
    let mut params = call.params()?;
    let dataset = params.take("dataset");
    let filters = Filters::take(&mut params)?;
    params.finish()?;
    let snapshot = call.view.dataset(dataset.as_deref(), kind)?;
    let page = page::read(call, snapshot, &filters).await?;
    let rows = event_out::rows(snapshot.kind, &page.batches);
    Ok(list(call, name, &rows, page.next.map(|cursor| cursor.encode())))
}
