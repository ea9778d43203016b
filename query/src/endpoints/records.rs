//! `GET /api/v1/events` and `/api/v1/logs`: a filtered page of one dataset.

use storage::record::Kind;

use super::event_out::Attributes;
use super::key::Key;
use super::page::{Asked, Listed};
use super::{Call, begin_list, end_list, event_out, page};
use crate::cursor::Cursor;
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
    let after = filters.cursor.as_ref().map(|cursor| Key {
        time_ns: cursor.time_ns,
        table: 0,
        writer: cursor.key.as_str().into(),
        seq: cursor.seq,
    });
    let asked = Asked { is_ascending: filters.is_ascending, limit: filters.limit, after };
    let attributes = Attributes::of(snapshot.kind, &snapshot.schema);
    let tables = [Listed { snapshot, conditions: filters.conditions(snapshot) }];
    let mut out = begin_list(call, name)?;
    let page = page::read(call, &tables, &asked, &mut out, |row, _, batch, at| {
        event_out::record(row, snapshot.kind, batch, at, &attributes);
    })
    .await?;
    let next =
        page.next.map(|key| Cursor { time_ns: key.time_ns, key: key.writer.to_string(), seq: key.seq });
    Ok(end_list(call, out, next.map(|cursor| cursor.encode())))
}
