//! `GET /api/v1/traces/{trace_id}`: all spans of one trace, in order of their start.
//!
//! A trace of usual size is one scan. A large one comes in pages; each says how many spans the whole trace has and
//! whether it is complete.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::Result as EngineResult;
use datafusion::logical_expr::{Expr, col, lit};
use datafusion::prelude::DataFrame;
use storage::memory::Charge;
use storage::record::{Field, Kind};

use super::event_out::{Attributes, text};
use super::key::Key;
use super::page::{Asked, Listed};
use super::{Call, begin, end, page, span_out};
use crate::budget;
use crate::cursor::Cursor;
use crate::filters;
use crate::query::Answer;
use crate::refusal::Refusal;
use crate::scan::Rows;

/// Spans of one page where no limit is asked for, and the most that one may ask for.
const LIMIT: usize = 10_000;

/// What a span takes while it is told whether its trace is complete.
const SPAN_BYTES: usize = 48;

/// Answers one trace.
///
/// # Errors
/// 404 where no span has that trace id, or it is none.
pub async fn answer(call: &Call<'_>) -> Result<Answer, Refusal> {
    let mut params = call.params()?;
    let limit = params.take_limit_or(LIMIT)?;
    let cursor = params.take_cursor()?;
    params.finish()?;
    let not_found = || Refusal::new(404, "trace_not_found", "there is no such trace");
    let id = filters::trace_id(call.path_id()).ok_or_else(not_found)?;
    let of_trace = || vec![col(Field::TraceId.name()).eq(lit(id.as_str()))];
    let tables: Vec<Listed<'_>> =
        call.view.of_kind(Kind::Spans).map(|snapshot| Listed { snapshot, conditions: of_trace() }).collect();
    let attributes: Vec<_> =
        tables.iter().map(|table| Attributes::of(Kind::Spans, &table.snapshot.schema)).collect();
    let whole = if cursor.is_none() { page::whole(call, &tables).await? } else { None };
    let mut shape = Shape::new(call)?;
    if let Some(whole) = &whole {
        for (_, batch) in &whole.batches {
            shape.add(batch)?;
        }
    } else {
        for table in &tables {
            shape.read(call, table).await?;
        }
    }
    if shape.span_count == 0 {
        return Err(not_found());
    }
    let head = format!(
        "{{\"trace_id\":\"{id}\",\"complete\":{},\"span_count\":{},\"spans\":[",
        shape.is_complete(),
        shape.span_count
    );
    drop(shape.charge);
    let mut out = begin(call, &head)?;
    let asked =
        Asked { is_ascending: true, limit, after: cursor.as_ref().map(|cursor| key(&tables, cursor)) };
    let render = |row: &mut Vec<u8>, table: usize, batch: &RecordBatch, at: usize| {
        if let Some(attributes) = attributes.get(table) {
            span_out::span(row, batch, at, attributes);
        }
    };
    let next = match whole {
        Some(whole) => page::render(whole, &asked, &mut out, render).await?.next,
        None => page::read(call, &tables, &asked, &mut out, render).await?.next,
    };
    out.end(b"]");
    Ok(end(call, out, next.map(|key| cursor_of(&tables, &key).encode())))
}

/// A cursor of a list over several tables: `dataset/writer`.
pub fn cursor_of(tables: &[Listed<'_>], key: &Key) -> Cursor {
    let dataset = tables.get(key.table).map_or("", |table| table.snapshot.table.dataset.as_str());
    Cursor { time_ns: key.time_ns, key: format!("{dataset}/{}", key.writer), seq: key.seq }
}

/// Where a cursor stands among these tables, which are in order of name.
pub fn key(tables: &[Listed<'_>], cursor: &Cursor) -> Key {
    let (dataset, writer) = cursor.key.split_once('/').unwrap_or(("", &cursor.key));
    let table = tables.partition_point(|table| table.snapshot.table.dataset.as_str() < dataset);
    Key { time_ns: cursor.time_ns, table, writer: writer.into(), seq: cursor.seq }
}

/// What a trace is, told by the ids of its spans alone.
struct Shape {
    hasher: RandomState,
    ids: HashSet<u64>,
    parents: HashSet<u64>,
    root_count: usize,
    span_count: usize,
    charge: Charge,
}

impl Shape {
    fn new(call: &Call<'_>) -> Result<Self, Refusal> {
        Ok(Self {
            hasher: RandomState::new(),
            ids: HashSet::new(),
            parents: HashSet::new(),
            root_count: 0,
            span_count: 0,
            charge: call.budget.take(0).map_err(budget::refusal)?,
        })
    }

    /// Adds the spans of one table.
    async fn read(&mut self, call: &Call<'_>, table: &Listed<'_>) -> Result<(), Refusal> {
        let planned = || -> EngineResult<DataFrame> {
            let mut frame = call.session.read(table.snapshot)?;
            if let Some(condition) = table.conditions.iter().cloned().reduce(Expr::and) {
                frame = frame.filter(condition)?;
            }
            frame.select_columns(&[Field::SpanId.name(), Field::ParentSpanId.name()])
        };
        let sources = call.sources(vec![Arc::clone(table.snapshot)]);
        let frame = match planned() {
            Ok(frame) => frame,
            Err(error) => return Err(sources.refusal(&error).await),
        };
        let mut rows = Rows::start(frame, sources).await?;
        while let Some(batch) = rows.next().await? {
            self.add(&batch)?;
        }
        Ok(())
    }

    fn add(&mut self, batch: &RecordBatch) -> Result<(), Refusal> {
        self.charge.grow((batch.num_rows() * SPAN_BYTES) as u64).map_err(budget::refusal)?;
        self.span_count += batch.num_rows();
        for row in 0..batch.num_rows() {
            self.ids.extend(text(batch, Field::SpanId.name(), row).map(|id| self.hasher.hash_one(id)));
            match text(batch, Field::ParentSpanId.name(), row) {
                Some(parent) => {
                    self.parents.insert(self.hasher.hash_one(parent));
                }
                None => self.root_count += 1,
            }
        }
        Ok(())
    }

    /// Whether there is exactly one root and every parent is there.
    fn is_complete(&self) -> bool {
        self.root_count == 1 && self.parents.is_subset(&self.ids)
    }
}
