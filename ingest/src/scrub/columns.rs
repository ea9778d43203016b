//! Scrubbing over a draft's columns: which column is read how, and what is rewritten.

use std::collections::HashMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use storage::record::{AttributeColumn, Column, Draft, Field, TextColumn, Type, json_text};

use super::detectors::{CARD, is_card, is_card_double};
use super::fields::{Action, Verdict};
use super::json_walk::numbered;
use super::rules::Rules;
use super::value::{How, Scan};
use super::{DETECTORS, Report, UNSCRUBBED};
use crate::cut;
use crate::decode::{Pace, SLICE_BYTES};

/// Keys a lane remembers the verdicts of. Chosen: eight full datasets, as the draft remembers.
const KNOWN_KEYS_MAX: usize = 4_096;

/// What a value that is searched counts for in a slice, beside decoding its bytes: detectors walk it several times.
const SEARCH_WEIGHT: usize = 8;

/// What a column counts for however short it is: its key's verdict, a pass over its rows.
const COLUMN_WEIGHT: usize = 512;

/// Rows that the prefilter looks at in one slice, however short. Chosen: each costs it some tens of nanoseconds.
const PIECE_ROWS: usize = 8_192;

/// A lane's room for scrubbing, kept between chunks.
#[derive(Debug, Default)]
pub struct Scrubber {
    rows: Vec<usize>,
    /// New values of the column at hand, one behind the other.
    values: Vec<u8>,
    /// Row, start and end of each new value.
    changed: Vec<(usize, usize, usize)>,
    keys: HashMap<Box<str>, Key>,
    /// The rules that `keys` was decided under.
    version: u64,
}

/// What is known of an attribute's key.
#[derive(Debug, Clone)]
struct Key {
    rule: Option<Verdict>,
    /// What it becomes where it is itself secret or personal.
    masked: Option<Box<str>>,
}

/// Values of one attribute to be replaced by text.
struct Masked {
    key: Box<str>,
    rows: Vec<(usize, String)>,
}

/// What became of a row's value, for the next row that holds the same.
#[derive(Clone, Copy)]
struct Outcome {
    row: usize,
    how: How,
    hits: [u32; DETECTORS],
    new: Option<(usize, usize)>,
}

impl Scrubber {
    /// Scrubs every column of the draft, slice by slice.
    pub(super) async fn run(
        &mut self,
        rules: &Rules,
        draft: &mut Draft,
        report: &mut Report,
        pace: &mut Pace<'_>,
    ) {
        if self.version != rules.version || self.keys.len() > KNOWN_KEYS_MAX {
            self.keys.clear();
            self.version = rules.version;
        }
        let mut scan = Scan { rules, report };
        self.fixed(&mut scan, draft, pace).await;
        self.attributes(&mut scan, draft, pace).await;
        // Last: masked numbers and values under masked keys have moved here.
        if self.column(&mut scan, draft.overflow_mut(), &[], |_| How::Json, pace).await {
            scan.report.columns_rewritten += 1;
        }
    }

    async fn fixed(&mut self, scan: &mut Scan<'_>, draft: &mut Draft, pace: &mut Pace<'_>) {
        let types = body_types(draft);
        // Bytes in base64 say nothing to the prefilter.
        let encoded: Vec<usize> =
            types.iter().filter(|(_, how)| **how == How::Base64).map(|(row, _)| *row).collect();
        for field in draft.kind().fields() {
            if matches!(field, Field::TraceId | Field::SpanId | Field::ParentSpanId | Field::Histogram) {
                continue;
            }
            let Column::Text(column) = draft.column_mut(*field) else { continue };
            if column.is_empty() {
                continue;
            }
            if let Some(rule) =
                scan.rules.fields.verdict(field.name()).filter(|rule| rule.action != Action::Keep)
            {
                column.rewrite(|_, value, out| {
                    // A fixed column is part of every row: what is dropped there leaves a mark.
                    let text =
                        scan.by_rule(&rule, field.name(), value).unwrap_or_else(|| "[dropped]".to_owned());
                    match field.r#type() {
                        Type::Json => json_text::string(out, &text),
                        _ => out.extend_from_slice(text.as_bytes()),
                    }
                });
                scan.report.columns_rewritten += 1;
                continue;
            }
            let is_json = field.r#type() == Type::Json;
            let how = |row: usize| match field {
                _ if is_json => How::Json,
                Field::Body => types.get(&row).copied().unwrap_or(How::Text),
                _ => How::Text,
            };
            let always: &[usize] = if *field == Field::Body { &encoded } else { &[] };
            if self.column(scan, column, always, how, pace).await {
                scan.report.columns_rewritten += 1;
                if *field == Field::Body {
                    self.forget_number_types(&types, draft);
                }
            }
        }
    }

    /// A body that was a number and is `[card]` now is text from here on.
    fn forget_number_types(&self, types: &HashMap<usize, How>, draft: &mut Draft) {
        let rows: Vec<usize> = self
            .changed
            .iter()
            .map(|(row, _, _)| *row)
            .filter(|row| types.get(row) == Some(&How::Text))
            .collect();
        if !rows.is_empty() {
            draft.column_mut(Field::BodyType).clear(rows.into_iter());
        }
    }

    async fn attributes(&mut self, scan: &mut Scan<'_>, draft: &mut Draft, pace: &mut Pace<'_>) {
        let (mut masked, mut renamed) = (Vec::new(), Vec::new());
        for attribute in draft.attributes_mut() {
            if pace.work(COLUMN_WEIGHT + attribute.column.len()) {
                pace.pass().await;
            }
            let key = self.key(scan, &attribute.key);
            if let Some(name) = key.masked {
                renamed.push((attribute.key.clone(), name));
            }
            if let Some(rule) = key.rule.filter(|rule| rule.action != Action::Keep) {
                masked.extend(mask_all(scan, &rule, attribute));
                scan.report.columns_rewritten += 1;
                continue;
            }
            let how = match attribute.r#type {
                Type::Json => How::Json,
                Type::Bytes => How::Bytes,
                _ => How::Text,
            };
            if let Column::Text(column) = &mut attribute.column {
                if self.column(scan, column, &[], |_| how, pace).await {
                    scan.report.columns_rewritten += 1;
                }
            } else if scan.finds_cards() {
                let rows = cards(&attribute.column);
                scan.report.count(CARD, u32::try_from(rows.len()).unwrap_or(u32::MAX));
                if !rows.is_empty() {
                    scan.report.columns_rewritten += 1;
                    masked.push(Masked { key: attribute.key.clone(), rows });
                }
            }
        }
        for Masked { key, rows } in &masked {
            let rows: Vec<(usize, &str)> = rows.iter().map(|(row, text)| (*row, text.as_str())).collect();
            draft.mask_attribute(key, &rows);
        }
        let mut numbers: HashMap<Box<str>, u32> = HashMap::new();
        for (key, name) in renamed {
            let number = numbers.entry(name.clone()).or_default();
            *number += 1;
            draft.rename_attribute(&key, &numbered(&name, *number));
        }
    }

    fn key(&mut self, scan: &mut Scan<'_>, key: &str) -> Key {
        if let Some(known) = self.keys.get(key) {
            return known.clone();
        }
        let found = Key { rule: scan.rules.fields.verdict(key), masked: scan.key(key).map(Into::into) };
        self.keys.insert(key.into(), found.clone());
        found
    }

    /// Scrubs one column; answers whether it was rewritten. Which rows changed stays in `changed`.
    /// `always` are rows to be looked at whatever the prefilter says.
    async fn column(
        &mut self,
        scan: &mut Scan<'_>,
        column: &mut TextColumn,
        always: &[usize],
        how: impl Fn(usize) -> How,
        pace: &mut Pace<'_>,
    ) -> bool {
        self.changed.clear();
        self.values.clear();
        if column.is_empty() {
            return false;
        }
        self.rows.clear();
        let mut seen = 0;
        while seen < column.len() {
            let piece = piece(column, seen);
            seen = piece.end;
            let bytes = scan.rules.prefilter.rows(column, piece, &mut self.rows);
            if pace.work(bytes) {
                pace.pass().await;
            }
        }
        if !always.is_empty() {
            self.rows.extend_from_slice(always);
            self.rows.sort_unstable();
            self.rows.dedup();
        }
        // Resources and scopes repeat from row to row: the last outcome is kept.
        let mut last: Option<Outcome> = None;
        for row in self.rows.iter().copied() {
            let Some(value) = column.get(row) else { continue };
            if pace.work(SEARCH_WEIGHT * value.len()) {
                pace.pass().await;
            }
            let how = how(row);
            let outcome = match last {
                Some(last) if last.how == how && column.get(last.row) == Some(value) => {
                    scan.report.hits.iter_mut().zip(last.hits).for_each(|(all, more)| *all += more);
                    last
                }
                _ => {
                    let (start, before) = (self.values.len(), scan.report.hits);
                    let is_changed = scan.guarded(value, how, &mut self.values);
                    let mut hits = scan.report.hits;
                    hits.iter_mut().zip(before).for_each(|(after, before)| *after -= before);
                    Outcome { row, how, hits, new: is_changed.then_some((start, self.values.len())) }
                }
            };
            if let Some((start, end)) = outcome.new {
                self.changed.push((row, start, end));
            }
            last = Some(outcome);
        }
        if self.changed.is_empty() {
            return false;
        }
        let mut changed = self.changed.iter().peekable();
        column.rewrite(|row, value, out| match changed.next_if(|(at, _, _)| *at == row) {
            Some((_, start, end)) => out.extend_from_slice(cut::bytes(&self.values, *start, *end)),
            None => out.extend_from_slice(value),
        });
        true
    }
}

impl Scan<'_> {
    /// What a name becomes that is itself secret or personal.
    pub(super) fn key(&mut self, key: &str) -> Option<String> {
        if key.len() < 5 || !self.rules.prefilter.is_hit(key.as_bytes()) {
            return None;
        }
        let mut out = Vec::new();
        let scanned = catch_unwind(AssertUnwindSafe(|| self.text(key, &mut out, 1)));
        match scanned {
            Ok(is_changed) => is_changed.then(|| String::from_utf8_lossy(&out).into_owned()),
            Err(_) => {
                self.report.unscrubbed += 1;
                Some(UNSCRUBBED.to_owned())
            }
        }
    }

    /// As [`Self::value`]; a value that cannot be scrubbed is masked whole, and stays JSON or base64 where it was (P1).
    fn guarded(&mut self, value: &[u8], how: How, out: &mut Vec<u8>) -> bool {
        let (start, hits) = (out.len(), self.report.hits);
        // Text columns hold UTF-8: decoders check it. What got in nevertheless cannot be searched.
        if how == How::Bytes || std::str::from_utf8(value).is_ok() {
            let scanned = catch_unwind(AssertUnwindSafe(|| self.value(value, how, out, 0)));
            if let Ok(is_changed) = scanned {
                return is_changed;
            }
        }
        out.truncate(start);
        self.report.hits = hits;
        self.report.unscrubbed += 1;
        match how {
            How::Text | How::Bytes => out.extend_from_slice(UNSCRUBBED.as_bytes()),
            How::Json => json_text::string(out, UNSCRUBBED),
            How::Base64 => out.extend_from_slice(STANDARD.encode(UNSCRUBBED).as_bytes()),
        }
        true
    }

    /// Whether numbers are to be looked at.
    pub(super) fn finds_cards(&self) -> bool {
        self.rules.active.iter().any(|(place, _)| *place == CARD)
    }
}

/// The rows from `start` on that the prefilter looks at in one slice: one at least.
fn piece(column: &TextColumn, start: usize) -> Range<usize> {
    let offsets = column.offsets();
    let rows = offsets.get(start + 1..).unwrap_or_default();
    let begins = offsets.get(start).map_or(0, |offset| i64::from(*offset));
    let within = rows.partition_point(|end| i64::from(*end) - begins <= SLICE_BYTES as i64);
    let most = rows.len().min(PIECE_ROWS);
    start..start + within.clamp(1.min(most), most)
}

/// How each body that is not text is to be read.
fn body_types(draft: &Draft) -> HashMap<usize, How> {
    let mut types = HashMap::new();
    if draft.has(Field::BodyType)
        && let Column::Text(column) = draft.column(Field::BodyType)
    {
        for row in 0..column.len() {
            let how = match column.get(row) {
                Some(b"json") => How::Json,
                Some(b"bytes") => How::Base64,
                Some(_) => How::Text,
                None => continue,
            };
            types.insert(row, how);
        }
    }
    types
}

/// Applies a field's rule to all its values: in place where they are text, else as rows to be masked.
fn mask_all(scan: &mut Scan<'_>, rule: &Verdict, attribute: &mut AttributeColumn) -> Option<Masked> {
    let key = attribute.key.clone();
    let len = attribute.column.len();
    if rule.action == Action::Drop {
        for row in (0..len).filter(|row| attribute.column.is_set(*row)) {
            scan.by_rule(rule, &key, &row.to_le_bytes());
        }
        attribute.column.clear(0..len);
        return None;
    }
    let mut replace = |value: &[u8]| scan.by_rule(rule, &key, value).expect("only dropping leaves nothing");
    if let Column::Text(column) = &mut attribute.column {
        let is_json = attribute.r#type == Type::Json;
        column.rewrite(|_, value, out| match value {
            [] => {}
            _ if is_json => json_text::string(out, &replace(value)),
            _ => out.extend_from_slice(replace(value).as_bytes()),
        });
        return None;
    }
    let text_of = |row: usize| match &attribute.column {
        Column::Int(column) => column.get(row).map(|value| value.to_string()),
        Column::Double(column) => column.get(row).map(|value| value.to_string()),
        Column::Bool(column) => column.get(row).map(|value| value.to_string()),
        Column::Text(_) => None,
    };
    let rows = (0..len).filter_map(|row| Some((row, replace(text_of(row)?.as_bytes())))).collect();
    Some(Masked { key, rows })
}

/// The rows whose numbers are cards.
fn cards(column: &Column) -> Vec<(usize, String)> {
    let is_hit = |row: usize| match column {
        Column::Int(column) => column.get(row).is_some_and(|value| is_card(value.unsigned_abs())),
        Column::Double(column) => column.get(row).is_some_and(is_card_double),
        _ => false,
    };
    // 10^12 is the smallest number of 13 digits: most columns are done with this.
    let may_hit = match column {
        Column::Int(column) => column.values().iter().any(|value| value.unsigned_abs() >= 1_000_000_000_000),
        Column::Double(column) => column.values().iter().any(|value| value.abs() >= 1e12),
        _ => false,
    };
    if !may_hit {
        return Vec::new();
    }
    (0..column.len()).filter(|row| is_hit(*row)).map(|row| (row, "[card]".to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use storage::record::{Draft, Field, Kind, Value};

    use super::Scrubber;
    use crate::scrub::{Rules, scrub};

    /// B1: a sender chooses its keys. A lane forgets them past its bound, which is looked at before each chunk: what one
    /// chunk has in columns may stand above it.
    #[test]
    fn keys_that_are_known_are_bounded() {
        let (mut scrubber, rules) = (Scrubber::default(), Rules::default_on());
        let mut draft = Draft::new(Kind::Events);
        for chunk in 0..20 {
            draft.begin_row();
            draft.set_int(Field::TimeNs, 1);
            draft.set_int(Field::ObservedNs, 1);
            for at in 0..500 {
                let _ = draft.attribute(&format!("key-{chunk}-{at}"), Value::Int(at));
            }
            draft.end_row();
            scrub(&mut scrubber, &rules, &mut draft).expect("scrubs");
            let known = scrubber.keys.len();
            assert!((500..=4_096 + 512).contains(&known), "{known} keys after chunk {chunk}");
        }
    }
}
