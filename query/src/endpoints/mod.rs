//! The reads, one file each, and the one list of them.
//!
//! An endpoint is a plain async function over a [`Call`]: what the caller may see, a session to run plans in,
//! and what was asked. It needs no storage, so tests hand it snapshots made by hand.

mod audit;
mod correlation;
mod event_out;
mod key;
mod latency;
mod page;
mod records;
mod services;
mod span_out;
mod sparse;
pub mod sql;
mod trace;
mod traces;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use storage::reader::Snapshot;
use storage::record::Kind;

use crate::budget::{self, Budget, Out};
use crate::params::Params;
use crate::plan::session::Session;
use crate::query::{Answer, Body};
use crate::refusal::Refusal;
use crate::scan::Sources;
use crate::view::View;

/// Which read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `GET /api/v1/events`
    Events,
    /// `GET /api/v1/logs`
    Logs,
    /// `GET /api/v1/traces`
    Traces,
    /// `GET /api/v1/traces/{trace_id}`
    Trace,
    /// `GET /api/v1/correlations/{correlation_id}`
    Correlation,
    /// `GET /api/v1/services`
    Services,
    /// `POST /api/v1/sql`
    Sql,
    /// `GET /api/v1/latency`
    Latency,
    /// `GET /api/v1/audit/traces`
    AuditTraces,
}

impl Endpoint {
    /// Which tables it reads, by name and kind; SQL says by itself which it reads. A list reads the one dataset that
    /// it is asked for.
    ///
    /// # Errors
    /// 400 for a query string that is none.
    pub fn reads(self, query: Option<&str>) -> Result<impl Fn(&str, Kind) -> bool, Refusal> {
        let built_in = match self {
            Self::Events => Some(Kind::Events),
            Self::Logs => Some(Kind::Logs),
            Self::Traces => Some(Kind::Spans),
            Self::AuditTraces => Some(Kind::Audit),
            _ => None,
        };
        let one = match built_in {
            Some(kind) => {
                let asked = Params::parse(query)?.take("dataset");
                Some(asked.unwrap_or_else(|| kind.as_str().to_owned()))
            }
            None => None,
        };
        Ok(move |name: &str, kind| one.as_deref().map_or_else(|| self.reads_kind(kind), |one| one == name))
    }

    fn reads_kind(self, kind: Kind) -> bool {
        match self {
            Self::Events | Self::Logs | Self::Traces | Self::AuditTraces => false,
            Self::Trace => kind == Kind::Spans,
            Self::Correlation => matches!(kind, Kind::Events | Kind::Spans | Kind::Logs | Kind::Audit),
            Self::Services => matches!(kind, Kind::Events | Kind::Spans | Kind::Logs),
            Self::Latency => kind == Kind::Latency,
            Self::Sql => true,
        }
    }
}

/// One request, as its endpoint sees it.
#[derive(Debug)]
pub struct Call<'a> {
    /// What the caller may see.
    pub view: &'a View,
    /// Where its plans run.
    pub session: &'a Session,
    /// What it may hold.
    pub budget: &'a Arc<Budget>,
    /// The last part of the path, where it is an id.
    pub path_id: Option<&'a str>,
    /// The query string.
    pub query: Option<&'a str>,
}

impl Call<'_> {
    fn params(&self) -> Result<Params, Refusal> {
        Params::parse(self.query)
    }

    fn sources(&self, snapshots: Vec<Arc<Snapshot>>) -> Sources {
        Sources::new(self.session, snapshots)
    }

    fn sources_in(&self, session: &Session, snapshots: Vec<Arc<Snapshot>>) -> Sources {
        Sources::new(session, snapshots)
    }

    fn path_id(&self) -> &str {
        self.path_id.unwrap_or_default()
    }
}

/// Answers one request.
///
/// # Errors
/// The refusal that the engine renders as a problem.
pub async fn answer(endpoint: Endpoint, call: &Call<'_>) -> Result<Answer, Refusal> {
    match endpoint {
        Endpoint::Events => records::answer(call, Kind::Events, "events").await,
        Endpoint::Logs => records::answer(call, Kind::Logs, "logs").await,
        Endpoint::AuditTraces => audit::answer(call).await,
        Endpoint::Traces => traces::answer(call).await,
        Endpoint::Trace => trace::answer(call).await,
        Endpoint::Correlation => correlation::answer(call).await,
        Endpoint::Services => services::answer(call).await,
        // A statement has a process to itself: `Query::answer` hands it there.
        Endpoint::Sql => Err(Refusal::bug()),
        Endpoint::Latency => latency::answer(call).await,
    }
}

/// A whole JSON reply.
fn json(body: Vec<u8>) -> Answer {
    Answer {
        status: 200,
        content_type: "application/json",
        headers: Vec::new(),
        body: Body::Full(Bytes::from(body)),
    }
}

/// Begins a reply with this text.
fn begin(call: &Call<'_>, text: &str) -> Result<Out, Refusal> {
    let mut out = Out::new(call.budget).map_err(budget::refusal)?;
    out.push(text.as_bytes()).map_err(budget::refusal)?;
    Ok(out)
}

/// Begins a list's reply: `{"<name>":[`.
fn begin_list(call: &Call<'_>, name: &str) -> Result<Out, Refusal> {
    begin(call, &format!("{{\"{name}\":["))
}

/// Ends a list's reply: `],"next_cursor":…}`, with the next page's link where there is one.
fn end_list(call: &Call<'_>, mut out: Out, next: Option<String>) -> Answer {
    out.end(b"]");
    end(call, out, next)
}

/// Ends a reply: `,"next_cursor":…}`, with the next page's link where there is one.
fn end(call: &Call<'_>, mut out: Out, next: Option<String>) -> Answer {
    out.end(b",\"next_cursor\":");
    match &next {
        // The alphabet of cursors needs no escapes.
        Some(cursor) => out.end(format!("\"{cursor}\"").as_bytes()),
        None => out.end(b"null"),
    }
    out.end(b"}");
    let mut answer = Answer {
        status: 200,
        content_type: "application/json",
        headers: Vec::new(),
        body: Body::Full(out.into_bytes()),
    };
    if let Some(cursor) = next {
        // A reference to the same path: the client resolves it against what it asked.
        let kept = call
            .query
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty() && pair.split('=').next() != Some("cursor"));
        let query = kept.map(str::to_owned).chain([format!("cursor={cursor}")]).collect::<Vec<_>>().join("&");
        if let Ok(link) = HeaderValue::from_str(&format!("<?{query}>; rel=\"next\"")) {
            answer.headers.push((HeaderName::from_static("link"), link));
        }
    }
    answer
}

#[cfg(test)]
mod tests;
