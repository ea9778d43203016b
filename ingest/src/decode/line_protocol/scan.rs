//! The grammar: finds one record's pieces without copying them.
//!
//! Keys and tags are a few bytes long, where a table look-up a byte is cheaper than starting a vector search;
//! strings and comments are searched with `memchr`. A backslash escapes a comma, an equals sign or a space in
//! names and tags, a quote or a backslash in strings; before anything else it stands for itself.

use memchr::{memchr, memchr2};

use super::Fault;
use crate::decode::Limits;

const COMMA: u8 = 1;
const SPACE: u8 = 2;
const EQUALS: u8 = 4;
const BACKSLASH: u8 = 8;
/// Control characters, newline among them: no name and no tag has them.
const CONTROL: u8 = 16;

/// What each byte means in a name or a tag.
static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 0x20 {
        classes[byte] = CONTROL;
        byte += 1;
    }
    classes[0x7f] = CONTROL;
    classes[b',' as usize] = COMMA;
    classes[b' ' as usize] = SPACE;
    classes[b'=' as usize] = EQUALS;
    classes[b'\\' as usize] = BACKSLASH;
    classes
};

/// Text of a record: a range of the body, or of the unescaped text where it had escapes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Piece {
    start: u32,
    end: u32,
    unescaped: bool,
}

impl Piece {
    fn of_body(start: usize, end: usize) -> Self {
        Self { start: short(start), end: short(end), unescaped: false }
    }

    fn len(self) -> usize {
        (self.end - self.start) as usize
    }
}

/// `lines` refuses bodies of 4 GiB, and unescaped text is no longer than its record.
fn short(at: usize) -> u32 {
    u32::try_from(at).expect("positions are below 4 GiB")
}

/// The value of a tag or field as scanned.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scanned {
    /// A tag's value.
    Tag(Piece),
    /// A string field.
    Text(Piece),
    /// `1i`.
    Int(i64),
    /// `1u`.
    Uint(u64),
    /// `1.5`.
    Double(f64),
    /// `t`, `true`, `F`, …
    Bool(bool),
}

/// One tag or field.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Its key.
    pub key: Piece,
    /// Its value.
    pub value: Scanned,
    /// How often `tag.` stands before its key in the row.
    pub tag_prefixes: u8,
    /// A later field of the same key replaces it.
    pub replaced: bool,
}

/// One record's pieces; the buffers are used again for the next one.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// The measurement.
    pub measurement: Piece,
    /// The tags, then the fields.
    pub entries: Vec<Entry>,
    /// How many of the entries are tags.
    pub tag_count: usize,
    /// The timestamp as sent.
    pub time: Option<i64>,
    /// What escaped pieces say without their backslashes.
    pub unescaped: Vec<u8>,
    /// Room for sorting keys.
    pub order: Vec<u32>,
}

impl Record {
    /// What the reused buffers hold, in bytes.
    pub fn held_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>() + self.unescaped.capacity() + self.order.capacity() * 4
    }
}

/// Turns pieces into text.
#[derive(Clone, Copy)]
pub(super) struct Texts<'a> {
    text: &'a str,
    offset: usize,
    unescaped: &'a str,
}

impl<'a> Texts<'a> {
    /// `text` is the body from `offset` on, at least to the record's end.
    pub fn new(text: &'a str, offset: usize, unescaped: &'a str) -> Self {
        Self { text, offset, unescaped }
    }

    /// The piece's text.
    #[inline]
    pub fn get(self, piece: Piece) -> &'a str {
        let (start, end) = (piece.start as usize, piece.end as usize);
        // Pieces begin and end beside ASCII bytes, so these are never inside a character.
        if piece.unescaped {
            &self.unescaped[start..end]
        } else {
            &self.text[start - self.offset..end - self.offset]
        }
    }
}

/// Where the next record begins from `at` on, past blank lines and comments.
pub(super) fn next_record(body: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *body.get(at)? {
            b' ' | b'\t' | b'\n' => at += 1,
            b'\r' if matches!(body.get(at + 1), None | Some(b'\n')) => at += 1,
            b'#' => at += memchr(b'\n', &body[at..])? + 1,
            _ => return Some(at),
        }
    }
}

/// The line's bytes without its newline or carriage return and newline.
pub(super) fn without_line_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Scans the record that begins at `start` and returns where it ends, its newline included.
pub(super) fn record(
    body: &[u8],
    start: usize,
    limits: &Limits,
    record: &mut Record,
) -> Result<usize, Fault> {
    record.entries.clear();
    record.unescaped.clear();
    record.time = None;
    let mut scanner = Scanner { body, at: start, limits, record };
    scanner.measurement()?;
    scanner.tags()?;
    scanner.fields()?;
    scanner.time()?;
    Ok(scanner.at)
}

struct Scanner<'a> {
    body: &'a [u8],
    at: usize,
    limits: &'a Limits,
    record: &'a mut Record,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.body.get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let eaten = self.peek() == Some(byte);
        self.at += usize::from(eaten);
        eaten
    }

    fn skip_spaces(&mut self) {
        while self.eat(b' ') {}
    }

    fn at_line_end(&self) -> bool {
        match self.peek() {
            None | Some(b'\n') => true,
            Some(b'\r') => matches!(self.body.get(self.at + 1), None | Some(b'\n')),
            Some(_) => false,
        }
    }

    /// The fault at the cursor: a control character where there is one, else what was expected.
    fn unexpected(&self, code: &'static str, detail: &'static str) -> Fault {
        match self.peek() {
            Some(byte) if CLASSES[usize::from(byte)] == CONTROL && !self.at_line_end() => {
                Fault::new("control_character", "names and tags have no control characters")
            }
            _ => Fault::new(code, detail),
        }
    }

    fn measurement(&mut self) -> Result<(), Fault> {
        let measurement = self.token(COMMA | SPACE)?;
        if measurement.len() == 0 {
            return Err(self.unexpected("measurement_missing", "a line begins with a measurement"));
        }
        if measurement.len() > self.limits.key_bytes_max {
            return Err(self.too_long("measurement_too_long", "measurement", measurement));
        }
        let first = if measurement.unescaped { &self.record.unescaped } else { self.body };
        if first[measurement.start as usize] == b'_' {
            return Err(Fault::new("reserved", "measurements that begin with _ are reserved"));
        }
        self.record.measurement = measurement;
        Ok(())
    }

    fn tags(&mut self) -> Result<(), Fault> {
        while self.eat(b',') {
            let key =
                self.key("tag_invalid", "a comma behind a measurement or tag is followed by tag=value")?;
            let value = self.token(COMMA | SPACE | EQUALS)?;
            if value.len() == 0 {
                return Err(self.unexpected("value_missing", "a tag has no value"));
            }
            if self.peek() == Some(b'=') {
                return Err(Fault::new("tag_invalid", "an equals sign in a tag's value is written \\="));
            }
            self.push(key, Scanned::Tag(value))?;
        }
        self.record.tag_count = self.record.entries.len();
        if self.peek() != Some(b' ') {
            return Err(self.unexpected("field_missing", "a line has at least one field"));
        }
        Ok(())
    }

    fn fields(&mut self) -> Result<(), Fault> {
        self.skip_spaces();
        if self.at_line_end() {
            return Err(Fault::new("field_missing", "a line has at least one field"));
        }
        loop {
            let key =
                self.key("field_invalid", "a field is key=value, and a space in a tag is written \\ ")?;
            let value = if self.eat(b'"') { Scanned::Text(self.string()?) } else { self.bare_value()? };
            self.push(key, value)?;
            if !self.eat(b',') {
                break;
            }
        }
        if self.peek() == Some(b' ') || self.at_line_end() {
            return Ok(());
        }
        Err(self.unexpected("field_invalid", "a field is followed by a comma, a space or the line's end"))
    }

    fn time(&mut self) -> Result<(), Fault> {
        self.skip_spaces();
        if !self.at_line_end() {
            let start = self.at;
            self.at += self.body[start..].iter().take_while(|byte| byte.is_ascii_graphic()).count();
            self.record.time = Some(super::time::parse(&self.body[start..self.at])?);
            self.skip_spaces();
            if !self.at_line_end() {
                return Err(Fault::new("timestamp_invalid", "nothing stands behind a line's timestamp"));
            }
        }
        self.eat(b'\r');
        self.eat(b'\n');
        Ok(())
    }

    fn push(&mut self, key: Piece, value: Scanned) -> Result<(), Fault> {
        if self.record.entries.len() >= self.limits.attributes_max {
            let detail =
                format!("more tags and fields than attributes_max {} in a line", self.limits.attributes_max);
            return Err(Fault::new("too_many_attributes", detail));
        }
        self.record.entries.push(Entry { key, value, tag_prefixes: 0, replaced: false });
        Ok(())
    }

    /// A tag's or field's key and the equals sign behind it.
    fn key(&mut self, code: &'static str, detail: &'static str) -> Result<Piece, Fault> {
        let key = self.token(COMMA | SPACE | EQUALS)?;
        if key.len() == 0 || self.peek() != Some(b'=') {
            return Err(self.unexpected(code, detail));
        }
        if key.len() > self.limits.key_bytes_max {
            return Err(self.too_long("key_too_long", "key", key));
        }
        self.at += 1;
        Ok(key)
    }

    fn too_long(&self, code: &'static str, what: &'static str, piece: Piece) -> Fault {
        let max = self.limits.key_bytes_max;
        Fault::new(code, format!("{what} of {} bytes exceeds key_bytes_max {max}", piece.len()))
    }

    /// Text up to one of `stops` or a control character.
    fn token(&mut self, stops: u8) -> Result<Piece, Fault> {
        let start = self.at;
        let stops = stops | BACKSLASH | CONTROL;
        let mut at = start;
        while let Some(byte) = self.body.get(at) {
            let class = CLASSES[usize::from(*byte)] & stops;
            if class != 0 {
                if class == BACKSLASH {
                    return self.escaped_token(start, at, stops);
                }
                break;
            }
            at += 1;
        }
        self.at = at;
        Ok(Piece::of_body(start, at))
    }

    /// A token whose first backslash stands at `at`.
    fn escaped_token(&mut self, start: usize, mut at: usize, stops: u8) -> Result<Piece, Fault> {
        let unescaped = &mut self.record.unescaped;
        let from = unescaped.len();
        unescaped.extend_from_slice(&self.body[start..at]);
        while let Some(byte) = self.body.get(at) {
            match CLASSES[usize::from(*byte)] & stops {
                0 => unescaped.push(*byte),
                BACKSLASH => match self.body.get(at + 1) {
                    Some(next @ (b',' | b'=' | b' ')) => {
                        unescaped.push(*next);
                        at += 1;
                    }
                    None | Some(b'\n' | b'\r') => {
                        return Err(Fault::new("trailing_backslash", "a line ends within an escape"));
                    }
                    Some(_) => unescaped.push(b'\\'),
                },
                _ => break,
            }
            at += 1;
        }
        self.at = at;
        Ok(Piece { start: short(from), end: short(unescaped.len()), unescaped: true })
    }

    /// The rest of a quoted string; newlines are part of it.
    fn string(&mut self) -> Result<Piece, Fault> {
        let start = self.at;
        let (end, has_escapes) = string_end(self.body, start)
            .ok_or_else(|| Fault::new("string_unterminated", "a string has no closing quote"))?;
        self.at = end + 1;
        if !has_escapes {
            return Ok(Piece::of_body(start, end));
        }
        let unescaped = &mut self.record.unescaped;
        let from = unescaped.len();
        let mut rest = &self.body[start..end];
        while let Some(backslash) = memchr(b'\\', rest) {
            unescaped.extend_from_slice(&rest[..backslash]);
            // No string ends in a lone backslash: it would have escaped the closing quote.
            let next = rest[backslash + 1];
            if !matches!(next, b'"' | b'\\') {
                unescaped.push(b'\\');
            }
            unescaped.push(next);
            rest = &rest[backslash + 2..];
        }
        unescaped.extend_from_slice(rest);
        Ok(Piece { start: short(from), end: short(unescaped.len()), unescaped: true })
    }

    fn bare_value(&mut self) -> Result<Scanned, Fault> {
        let start = self.at;
        let stops = COMMA | SPACE | CONTROL;
        while self.peek().is_some_and(|byte| CLASSES[usize::from(byte)] & stops == 0) {
            self.at += 1;
        }
        match &self.body[start..self.at] {
            [] => Err(self.unexpected("value_missing", "a field has no value")),
            b"t" | b"T" | b"true" | b"True" | b"TRUE" => Ok(Scanned::Bool(true)),
            b"f" | b"F" | b"false" | b"False" | b"FALSE" => Ok(Scanned::Bool(false)),
            token => super::number::parse(token),
        }
    }
}

/// Where the string that begins at `start` has its closing quote, and whether it has backslashes.
pub(super) fn string_end(body: &[u8], start: usize) -> Option<(usize, bool)> {
    let mut at = start;
    let mut has_escapes = false;
    loop {
        at += memchr2(b'"', b'\\', body.get(at..)?)?;
        if body[at] == b'"' {
            return Some((at, has_escapes));
        }
        has_escapes = true;
        at += 2;
    }
}
