//! `POST /api/v1/sql`: one query over the tenant's tables, as JSON up to a bound or as a stream without one.
//!
//! Only the envelope is read here. The statement itself is parsed, planned and run in a worker process
//! (`crate::worker`).

use serde::Deserialize;

use crate::params::Params;
use crate::plan::guard::{Refused, SQL_BYTES_MAX};
use crate::query::Request;
use crate::refusal::Refusal;
use crate::worker::Question;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    query: String,
}

/// Reads what is asked.
///
/// # Errors
/// 400 when the body is no `{"query": "…"}` or the URL has parameters, 413 when the statement is too long.
pub fn question(request: &Request, rows_max: usize) -> Result<Question, Refusal> {
    Params::parse(request.query.as_deref())?.finish()?;
    let is_object = request.body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    let asked: Result<Asked, _> = serde_json::from_slice(&request.body);
    let sql = match asked {
        Ok(asked) if is_object => asked.query,
        Ok(_) => return Err(Refusal::new(400, "invalid_body", "the body is not {\"query\": \"…\"}")),
        Err(error) => {
            let at = format!("line {}, column {}", error.line(), error.column());
            return Err(Refusal::new(
                400,
                "invalid_body",
                format!("the body is not {{\"query\": \"…\"}}, at {at}"),
            ));
        }
    };
    if sql.len() > SQL_BYTES_MAX {
        return Err(Refused::TooLong { bytes: sql.len() }.into());
    }
    Ok(Question { sql, accept: request.accept.clone(), rows_max, number: 0 })
}
