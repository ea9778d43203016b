//! Cuts a file into requests within bounds on records and bytes. A record is never cut, and every record
//! is in exactly one request, so the counts of the replies add up to what the file held.
//!
//! Rows are read as they come and memory holds one request. A document (pretty-printed JSON, an array,
//! one protobuf message) has to be read whole, up to `DOCUMENT_BYTES_MAX`.

use std::io::{self, BufRead, Read as _};

use serde_json::value::RawValue;

use super::otlp_json;
use super::protocol::{Form, Protocol};
use crate::client::otlp;

/// How large a request may get.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Records.
    pub records_max: usize,
    /// Bytes before compression.
    pub bytes_max: usize,
}

/// One request's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The body, not compressed.
    pub body: Vec<u8>,
    /// The records in it.
    pub records: u64,
    /// Line of the file at which it starts, from 1; 0 where the file has no lines.
    pub first_line: u64,
}

/// Bytes of a document that has to be read whole.
const DOCUMENT_BYTES_MAX: u64 = 1 << 30;
/// Bytes of one row. Far over the server's own limit, which shall be the one that refuses it.
const ROW_BYTES_MAX: usize = 64 << 20;
/// Bytes that a quoted text of line protocol is followed over newlines: the server's limit on a line.
const QUOTED_BYTES_MAX: usize = 1 << 20;

/// Cuts what `reader` holds.
pub struct Splitter<R> {
    reader: R,
    protocol: Protocol,
    form: Form,
    bounds: Bounds,
    /// Bytes read and not yet handed out, from `start`.
    buffer: Vec<u8>,
    start: usize,
    ended: bool,
    line: u64,
    /// Parts of a document or of an oversized request, last first.
    parts: Vec<Batch>,
}

impl<R: BufRead> Splitter<R> {
    /// Cuts what `reader` holds, which is `protocol` in `form`.
    pub fn new(reader: R, protocol: Protocol, form: Form, bounds: Bounds) -> Self {
        Self {
            reader,
            protocol,
            form,
            bounds,
            buffer: Vec::new(),
            start: 0,
            ended: false,
            line: 1,
            parts: Vec::new(),
        }
    }

    /// Returns the next request, none at the end.
    ///
    /// # Errors
    /// When the file cannot be read, a row or document is over its bound, or a document is not what it
    /// was taken for.
    pub fn next_batch(&mut self) -> io::Result<Option<Batch>> {
        if let Some(part) = self.parts.pop() {
            return Ok(Some(part));
        }
        match self.form {
            Form::Rows if self.protocol.is_otlp() => self.next_request(),
            Form::Rows => self.next_rows(),
            Form::Document | Form::Protobuf => {
                self.read_document()?;
                Ok(self.parts.pop())
            }
        }
    }

    /// Takes rows until a bound is reached.
    fn next_rows(&mut self) -> io::Result<Option<Batch>> {
        let mut batch = Batch { body: Vec::new(), records: 0, first_line: self.line };
        while batch.records < self.bounds.records_max as u64 {
            let Some(end) = self.row_end()? else { break };
            let row = &self.buffer[self.start..end];
            let is_record = is_record(self.protocol, row);
            if is_record && batch.records > 0 && batch.body.len() + row.len() > self.bounds.bytes_max {
                break;
            }
            if self.protocol == Protocol::Text {
                if is_record {
                    wrap_text(&mut batch.body, row);
                }
                batch.body.push(b'\n');
            } else {
                // Blank rows and comments stay, so that the server's line numbers are the file's.
                batch.body.extend_from_slice(row);
            }
            batch.records += u64::from(is_record);
            self.take_row(end);
        }
        Ok((batch.records > 0).then_some(batch))
    }

    /// Takes one row that is a whole OTLP/JSON request, cut where it is over a bound.
    fn next_request(&mut self) -> io::Result<Option<Batch>> {
        loop {
            let first_line = self.line;
            let Some(end) = self.row_end()? else { return Ok(None) };
            let row = self.buffer[self.start..end].trim_ascii().to_vec();
            self.take_row(end);
            if row.is_empty() {
                continue;
            }
            self.parts = cut_request(row, self.bounds, first_line);
            self.parts.reverse();
            if let Some(part) = self.parts.pop() {
                return Ok(Some(part));
            }
        }
    }

    fn read_document(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.ended, true) {
            return Ok(());
        }
        let mut document = Vec::new();
        let read = (&mut self.reader).take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut document)?;
        if read as u64 > DOCUMENT_BYTES_MAX {
            return Err(too_large("the document", DOCUMENT_BYTES_MAX as usize));
        }
        let not_what =
            |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("the file is no {what}"));
        self.parts = match (self.form, self.protocol.is_otlp()) {
            (Form::Protobuf, _) => otlp::cut(&document, self.bounds.records_max, self.bounds.bytes_max)
                .ok_or_else(|| not_what("protobuf export request"))?
                .into_iter()
                .map(|(body, records)| Batch { body, records, first_line: 0 })
                .collect(),
            (_, true) => cut_request(document, self.bounds, 0),
            (_, false) => {
                cut_array(&document, self.bounds).ok_or_else(|| not_what("JSON object or array"))?
            }
        };
        self.parts.reverse();
        Ok(())
    }

    fn take_row(&mut self, end: usize) {
        self.line += memchr::memchr_iter(b'\n', &self.buffer[self.start..end]).count() as u64;
        self.start = end;
    }

    /// Returns where the next row ends in the buffer (its newline included), none at the end of the file.
    fn row_end(&mut self) -> io::Result<Option<usize>> {
        if self.start > 0 && self.start >= self.buffer.len() / 2 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        let mut from = 0;
        let mut newline = None;
        loop {
            let rest = &self.buffer[self.start..];
            if let Some(at) = memchr::memchr(b'\n', &rest[from..]) {
                let end = from + at + 1;
                // A newline within a quoted text is part of its line, unless the quote is never closed.
                let open = self.protocol == Protocol::Lines && leaves_quote_open(&rest[..end]);
                if !open {
                    return Ok(Some(self.start + end));
                }
                newline = newline.or(Some(end));
                if end < QUOTED_BYTES_MAX {
                    from = end;
                    continue;
                }
            }
            if let Some(end) = newline
                && (rest.len() >= QUOTED_BYTES_MAX || (self.ended && leaves_quote_open(rest)))
            {
                return Ok(Some(self.start + end));
            }
            if self.ended {
                return Ok((!rest.is_empty()).then_some(self.buffer.len()));
            }
            if rest.len() > ROW_BYTES_MAX {
                return Err(too_large("a line", ROW_BYTES_MAX));
            }
            from = rest.len();
            let piece = self.reader.fill_buf()?;
            self.ended = piece.is_empty();
            self.buffer.extend_from_slice(piece);
            let taken = piece.len();
            self.reader.consume(taken);
        }
    }
}

fn too_large(what: &str, bytes_max: usize) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what} exceeds {bytes_max} bytes"))
}

fn is_record(protocol: Protocol, row: &[u8]) -> bool {
    let row = row.trim_ascii();
    !row.is_empty() && (protocol != Protocol::Lines || !row.starts_with(b"#"))
}

/// Returns whether a line of line protocol ends within a quoted text.
///
/// Quotes have a meaning only where a field's value starts; in names, tags and comments they are
/// characters like any other.
fn leaves_quote_open(line: &[u8]) -> bool {
    let line = line.trim_ascii_start();
    if line.starts_with(b"#") || memchr::memchr(b'"', line).is_none() {
        return false;
    }
    let mut in_fields = false;
    let mut in_quote = false;
    let mut previous = 0;
    let mut bytes = line.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => {
                // Whatever follows stands for itself.
                bytes.next();
            }
            b'"' if in_quote => in_quote = false,
            b'"' if in_fields && previous == b'=' => in_quote = true,
            b' ' if !in_fields => in_fields = true,
            _ => {}
        }
        previous = byte;
    }
    in_quote
}

fn wrap_text(body: &mut Vec<u8>, row: &[u8]) {
    let text = String::from_utf8_lossy(row.trim_ascii_end());
    body.extend_from_slice(b"{\"message\":");
    body.extend_from_slice(serde_json::Value::from(text).to_string().as_bytes());
    body.push(b'}');
}

/// Counts an OTLP/JSON request and cuts it where it is over a bound.
///
/// What cannot be read goes as it is and counts as one record: the server says what is wrong with it.
fn cut_request(request: Vec<u8>, bounds: Bounds, first_line: u64) -> Vec<Batch> {
    let whole = |body, records| vec![Batch { body, records, first_line }];
    match otlp_json::record_count(&request) {
        None => whole(request, 1),
        Some(0) => Vec::new(),
        Some(count) if count <= bounds.records_max as u64 && request.len() <= bounds.bytes_max => {
            whole(request, count)
        }
        Some(count) => match otlp_json::cut(&request, bounds) {
            Some(parts) => {
                let parts = parts.into_iter().map(|(body, records)| Batch { body, records, first_line });
                parts.collect()
            }
            None => whole(request, count),
        },
    }
}

/// Cuts a JSON array, or one object, into arrays.
fn cut_array(document: &[u8], bounds: Bounds) -> Option<Vec<Batch>> {
    let items: Vec<&RawValue> = match serde_json::from_slice(document) {
        Ok(items) => items,
        Err(_) => vec![serde_json::from_slice(document).ok()?],
    };
    let mut batches = Vec::new();
    let mut batch = Batch { body: vec![b'['], records: 0, first_line: 0 };
    for item in items {
        let over = batch.body.len() + item.get().len() + 2 > bounds.bytes_max;
        if batch.records > 0 && (over || batch.records >= bounds.records_max as u64) {
            batch.body.push(b']');
            batches
                .push(std::mem::replace(&mut batch, Batch { body: vec![b'['], records: 0, first_line: 0 }));
        }
        if batch.records > 0 {
            batch.body.push(b',');
        }
        batch.body.extend_from_slice(item.get().as_bytes());
        batch.records += 1;
    }
    if batch.records > 0 {
        batch.body.push(b']');
        batches.push(batch);
    }
    Some(batches)
}

#[cfg(test)]
mod tests;
