//! `POST /api/v1/sql`: one query over the tenant's tables, as JSON up to a bound or as a stream without one.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use storage::record::json_text;
use tokio::sync::mpsc;

use super::{Call, json};
use crate::plan::guard::{self, Checked};
use crate::plan::{attr, table, work};
use crate::query::{Answer, Body};
use crate::refusal::Refusal;
use crate::render::{self, Format};
use crate::scan::Rows;

/// Bytes of a JSON reply at most; what is beyond is cut as rows beyond the bound are.
const REPLY_BYTES_MAX: usize = 64 << 20;
/// Batches that wait for a slow client.
const QUEUE_BATCHES: usize = 2;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    query: String,
}

/// Parses the body and checks the statement in it.
///
/// # Errors
/// 400 when it is no `{"query": "…"}` or not exactly one query, 413 when the statement is too long.
pub fn check(body: &[u8]) -> Result<Checked, Refusal> {
    let asked: Asked = serde_json::from_slice(body).map_err(|error| {
        let at = format!("line {}, column {}", error.line(), error.column());
        Refusal::new(400, "invalid_body", format!("the body is not {{\"query\": \"…\"}}, at {at}"))
    })?;
    Ok(guard::check(&asked.query)?)
}

/// Answers a query.
///
/// # Errors
/// 404 for a table that is not there or not the caller's, 400 for what the planner refuses, 422 past bounds.
pub async fn answer(call: &Call<'_>) -> Result<Answer, Refusal> {
    // Where the engine stumbles over a statement it is still the statement's: an input never causes a 5xx.
    run(call).await.map_err(|refusal| {
        if refusal == Refusal::bug() {
            Refusal::new(400, "query_failed", "the query engine cannot run this query")
        } else {
            refusal
        }
    })
}

async fn run(call: &Call<'_>) -> Result<Answer, Refusal> {
    call.params()?.finish()?;
    let Checked { mut query, tables: named } = check(call.body)?;
    let mut tables = BTreeMap::new();
    for name in named {
        // T1: what is not in the view is not there, whoever else has it.
        let snapshot = call.view.tables().get(&name).ok_or_else(Refusal::table_not_found)?;
        tables.insert(name, Arc::clone(snapshot));
    }
    attr::rewrite(&mut query, &tables).map_err(|problem| Refusal::new(400, "invalid_query", problem))?;
    let sources = call.sources(tables.values().cloned().collect());
    let frame = match call.session.plan(query, &tables).await {
        Ok(frame) => frame,
        Err(error) => return Err(sources.refusal(&error).await),
    };
    let rows_of = |name: &str| tables.get(name).map_or(0, |snapshot| table::rows(snapshot));
    let optimized = match frame.clone().into_optimized_plan() {
        Ok(plan) => plan,
        Err(error) => return Err(sources.refusal(&error).await),
    };
    if work::product_rows(&optimized, &rows_of) > work::PRODUCT_ROWS_MAX {
        return Err(Refusal::query_limit(
            "the query multiplies tables into too many rows; join them on a column",
        ));
    }
    let schema = Arc::new(frame.schema().as_arrow().clone());
    let format = render::format(call.accept, &schema).map_err(|_| Refusal::bug())?;
    match format {
        Some(format) => stream(Rows::start(frame, sources).await?, format, call.time_max).await,
        None => {
            let limited = match frame.limit(0, Some(call.rows_max + 1)) {
                Ok(limited) => limited,
                Err(error) => return Err(sources.refusal(&error).await),
            };
            whole(Rows::start(limited, sources).await?, call.rows_max).await
        }
    }
}

async fn whole(mut rows: Rows, rows_max: usize) -> Result<Answer, Refusal> {
    let schema = rows.schema();
    let mut out = b"{\"columns\":[".to_vec();
    for (at, (name, field)) in render::column_names(&schema).iter().zip(schema.fields()).enumerate() {
        out.extend_from_slice(if at == 0 { b"{\"name\":" } else { b",{\"name\":" });
        json_text::string(&mut out, name);
        out.extend_from_slice(b",\"type\":");
        json_text::string(&mut out, &render::json::type_name(field.data_type()));
        out.push(b'}');
    }
    out.extend_from_slice(b"],\"rows\":[");
    let columns = render::json::Columns::of(&schema);
    let mut row_count = 0;
    let mut is_truncated = false;
    'all: while let Some(batch) = rows.next().await? {
        for row in 0..batch.num_rows() {
            if row_count >= rows_max || out.len() >= REPLY_BYTES_MAX {
                is_truncated = true;
                break 'all;
            }
            if row_count > 0 {
                out.push(b',');
            }
            columns.row(&mut out, &batch, row);
            row_count += 1;
        }
    }
    out.extend_from_slice(format!("],\"row_count\":{row_count},\"truncated\":{is_truncated}}}").as_bytes());
    Ok(json(out))
}

/// Streams a result. The first batch is made before the status is sent, so that what fails early says so.
async fn stream(
    mut rows: Rows,
    mut format: Format,
    time_max: std::time::Duration,
) -> Result<Answer, Refusal> {
    let content_type = format.content_type();
    let mut buffer = Vec::new();
    format.begin(&mut buffer).map_err(|_| Refusal::bug())?;
    let mut batch = rows.next().await?;
    let (sender, receiver) = mpsc::channel(QUEUE_BATCHES);
    tokio::spawn(async move {
        let pump = async {
            while let Some(next) = batch {
                format.rows(&mut buffer, &next).map_err(|_| ())?;
                sender.send(Ok(Bytes::from(std::mem::take(&mut buffer)))).await.map_err(|_| ())?;
                // The client has left: the plan is dropped where it stands.
                batch = tokio::select! {
                    next = rows.next() => next.map_err(|_| ())?,
                    () = sender.closed() => return Err(()),
                };
            }
            format.end(&mut buffer).map_err(|_| ())?;
            if buffer.is_empty() {
                return Ok(());
            }
            sender.send(Ok(Bytes::from(std::mem::take(&mut buffer)))).await.map_err(|_| ())
        };
        // The status is out already: an error can only cut the stream, which the client sees as such.
        if !matches!(tokio::time::timeout(time_max, pump).await, Ok(Ok(()))) {
            let _ = sender.send(Err(())).await;
        }
    });
    Ok(Answer { status: 200, content_type, headers: Vec::new(), body: Body::Stream(receiver) })
}
