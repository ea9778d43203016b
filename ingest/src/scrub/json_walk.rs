//! JSON text token by token: names decide over values, strings are searched unescaped, and what comes out
//! is JSON of the same shape.
//!
//! The walk never recurses into nesting, only (bounded) into strings that hold JSON themselves. Untouched tokens
//! are copied as they stand, blanks too. Text that is no JSON is answered as such, and searched as text.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use memchr::memchr2;
use storage::record::json_text;

use super::decoded::hex;
use super::detectors::{CARD, is_card, is_card_double};
use super::fields::{Action, Verdict};
use super::value::{How, Scan};
use crate::cut;

/// What became of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Walked {
    /// It is no JSON value; nothing was written.
    NotJson,
    /// Nothing is to be replaced; nothing was written.
    Clean,
    /// The new text was written.
    Changed,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Expect {
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    Colon,
    CommaOrEnd,
    Nothing,
}

/// An open object or array.
struct Frame {
    is_object: bool,
    /// The rule of the name it stands under: it holds for everything inside.
    rule: Option<Verdict>,
    /// In `{"name": "password", "value": …}` the rule of the name in the value.
    named: Option<Verdict>,
    /// Names masked in this object so far, numbered so that they stay apart.
    masked_names: u32,
}

struct Walk<'w, 's> {
    scan: &'w mut Scan<'s>,
    json: &'w str,
    out: &'w mut Vec<u8>,
    copied: usize,
    is_changed: bool,
    stack: Vec<Frame>,
    name: String,
    /// Whether the next value stands under `name` itself, not in something under it.
    is_named: bool,
    rule: Option<Verdict>,
    depth: usize,
}

/// Writes `json` without what must not be kept to `out`, if there is anything to replace.
pub(super) fn walk(scan: &mut Scan<'_>, json: &str, out: &mut Vec<u8>, depth: usize) -> Walked {
    let (start, hits) = (out.len(), scan.report.hits);
    let mut walk = Walk {
        scan,
        json,
        out,
        copied: 0,
        is_changed: false,
        stack: Vec::new(),
        name: String::new(),
        is_named: false,
        rule: None,
        depth,
    };
    let is_json = walk.run().is_some();
    let (copied, is_changed) = (walk.copied, walk.is_changed);
    if !is_json {
        out.truncate(start);
        // What was counted on the way is found again in the text.
        scan.report.hits = hits;
        return Walked::NotJson;
    }
    if !is_changed {
        return Walked::Clean;
    }
    out.extend_from_slice(cut::tail(json.as_bytes(), copied));
    Walked::Changed
}

impl Walk<'_, '_> {
    /// `None` where the text is no JSON value.
    fn run(&mut self) -> Option<()> {
        let bytes = self.json.as_bytes();
        let (mut at, mut expect) = (0, Expect::Value);
        loop {
            while matches!(bytes.get(at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
                at += 1;
            }
            let Some(byte) = bytes.get(at) else {
                return (expect == Expect::Nothing).then_some(());
            };
            (at, expect) = match (expect, *byte) {
                (Expect::Value | Expect::ValueOrEnd, b'{' | b'[') => {
                    let is_object = *byte == b'{';
                    let rule = self.rule_of_value();
                    self.is_named = false;
                    self.stack.push(Frame { is_object, rule, named: None, masked_names: 0 });
                    (at + 1, if is_object { Expect::KeyOrEnd } else { Expect::ValueOrEnd })
                }
                (Expect::Value | Expect::ValueOrEnd, b'"') => {
                    let end = string_end(bytes, at)?;
                    self.string(at, end);
                    (end, self.after_value())
                }
                (Expect::ValueOrEnd | Expect::CommaOrEnd, b']') if !self.stack.last()?.is_object => {
                    self.stack.pop();
                    (at + 1, self.after_value())
                }
                (Expect::KeyOrEnd | Expect::CommaOrEnd, b'}') if self.stack.last()?.is_object => {
                    self.stack.pop();
                    (at + 1, self.after_value())
                }
                (Expect::Value | Expect::ValueOrEnd, _) => {
                    let end = at + cut::tail(bytes, at).iter().take_while(|b| is_scalar_byte(**b)).count();
                    self.scalar(at, end)?;
                    (end, self.after_value())
                }
                (Expect::Key | Expect::KeyOrEnd, b'"') => {
                    let end = string_end(bytes, at)?;
                    self.key(at, end);
                    (end, Expect::Colon)
                }
                (Expect::Colon, b':') => (at + 1, Expect::Value),
                (Expect::CommaOrEnd, b',') => {
                    (at + 1, if self.stack.last()?.is_object { Expect::Key } else { Expect::Value })
                }
                _ => return None,
            };
        }
    }

    fn after_value(&self) -> Expect {
        if self.stack.is_empty() { Expect::Nothing } else { Expect::CommaOrEnd }
    }

    /// The rule for the value that comes now, its own or that of what it is in.
    fn rule_of_value(&mut self) -> Option<Verdict> {
        let own = self.rule.take();
        own.or_else(|| self.stack.last().and_then(|frame| frame.rule))
    }

    fn replace(&mut self, start: usize, end: usize, write: impl FnOnce(&mut Vec<u8>)) {
        self.out.extend_from_slice(cut::bytes(self.json.as_bytes(), self.copied, start));
        write(self.out);
        self.copied = end;
        self.is_changed = true;
    }

    fn key(&mut self, start: usize, end: usize) {
        let key = unescape(cut::text(self.json, start + 1, end - 1));
        self.rule = self.scan.rules.fields.verdict(&key);
        if self.rule.is_none()
            && let Some(Frame { named: Some(named), .. }) = self.stack.last()
            && matches!(&*key, "value" | "Value" | "val" | "v" | "stringValue")
        {
            self.rule = Some(*named);
        }
        self.name.clear();
        self.name.push_str(&key);
        self.is_named = true;
        if let Some(masked) = self.scan.key(&key) {
            let number = self.stack.last_mut().map_or(1, |frame| {
                frame.masked_names += 1;
                frame.masked_names
            });
            self.replace(start, end, |out| json_text::string(out, &numbered(&masked, number)));
        }
    }

    fn string(&mut self, start: usize, end: usize) {
        let raw = cut::text(self.json, start + 1, end - 1);
        let is_bytes = std::mem::take(&mut self.is_named) && self.name == "$bytes";
        let rule = self.rule_of_value();
        if let Some(rule) = rule.filter(|rule| rule.action != Action::Keep) {
            if !raw.is_empty() && raw != rule.label {
                let value = unescape(raw);
                let (mut text, name) = (Vec::new(), std::mem::take(&mut self.name));
                self.scan.json_by_rule(&rule, &name, value.as_bytes(), &mut text);
                self.name = name;
                self.replace(start, end, |out| out.extend_from_slice(&text));
            }
            return;
        }
        self.note_name(raw);
        if raw.len() < 5 || !(is_bytes || self.scan.rules.prefilter.is_hit(raw.as_bytes())) {
            return;
        }
        let value = unescape(raw);
        let mut replaced = Vec::new();
        let how = if is_bytes && STANDARD.decode(raw).is_ok() { How::Base64 } else { How::Text };
        if self.scan.value(value.as_bytes(), how, &mut replaced, self.depth + 1) {
            let text = String::from_utf8_lossy(&replaced);
            self.replace(start, end, |out| json_text::string(out, &text));
        }
    }

    /// Remembers the rule of the name in `{"name": "password", "value": …}`.
    fn note_name(&mut self, raw: &str) {
        let Some(frame) = self.stack.last_mut() else { return };
        if frame.is_object
            && matches!(self.name.as_str(), "name" | "Name" | "key" | "Key" | "header" | "field" | "k")
        {
            frame.named = self.scan.rules.fields.verdict(raw);
        }
    }

    /// A number or a word; `None` where it is neither.
    fn scalar(&mut self, start: usize, end: usize) -> Option<()> {
        let text = cut::text(self.json, start, end);
        let rule = self.rule_of_value();
        let is_number = match text {
            "null" => return Some(()),
            "true" | "false" => false,
            _ if is_number(text) => true,
            _ => return None,
        };
        if let Some(rule) = rule.filter(|rule| rule.action != Action::Keep) {
            let (mut replaced, name) = (Vec::new(), std::mem::take(&mut self.name));
            self.scan.json_by_rule(&rule, &name, text.as_bytes(), &mut replaced);
            self.name = name;
            self.replace(start, end, |out| out.extend_from_slice(&replaced));
            return Some(());
        }
        if is_number && text.len() >= 5 && self.scan.finds_cards() && is_card_number(text) {
            self.scan.report.count(CARD, 1);
            self.replace(start, end, |out| out.extend_from_slice(b"\"[card]\""));
        }
        Some(())
    }
}

/// A masked name that others of the same object do not share.
pub(super) fn numbered(masked: &str, number: u32) -> Cow<'_, str> {
    if number < 2 { Cow::Borrowed(masked) } else { Cow::Owned(format!("{masked}~{number}")) }
}

fn is_card_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    match digits.parse::<u64>() {
        Ok(number) => is_card(number),
        Err(_) => digits.parse().is_ok_and(is_card_double),
    }
}

fn is_scalar_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')
}

/// JSON's grammar of numbers: Rust's parser takes more (`+1`, `1.`, `inf`).
fn is_number(text: &str) -> bool {
    let (whole, rest) = digits(text.as_bytes().strip_prefix(b"-").unwrap_or(text.as_bytes()));
    if whole.is_empty() || (whole.len() > 1 && whole.starts_with(b"0")) {
        return false;
    }
    let rest = match rest.strip_prefix(b".").map(digits) {
        Some(([], _)) => return false,
        Some((_, rest)) => rest,
        None => rest,
    };
    match rest {
        [] => true,
        [b'e' | b'E', b'+' | b'-', exponent @ ..] | [b'e' | b'E', exponent @ ..] => {
            matches!(digits(exponent), ([_, ..], []))
        }
        _ => false,
    }
}

/// The digits that text begins with, and the rest.
fn digits(text: &[u8]) -> (&[u8], &[u8]) {
    let count = text.iter().take_while(|b| b.is_ascii_digit()).count();
    (cut::head(text, count), cut::tail(text, count))
}

/// Past the closing quote of the string that opens at `start`.
fn string_end(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        at += memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes.get(at) == Some(&b'"') {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// The text that a JSON string's inside spells. A lone surrogate, which no decoder lets in, becomes U+FFFD; a backslash
/// that begins no escape stands for itself.
fn unescape(raw: &str) -> Cow<'_, str> {
    let Some((mut plain, mut rest)) = raw.split_once('\\') else { return Cow::Borrowed(raw) };
    let mut text = String::with_capacity(raw.len());
    loop {
        text.push_str(plain);
        // `rest` is what stands behind the backslash.
        let (c, len) = escape(rest.as_bytes()).unwrap_or(('\\', 0));
        text.push(c);
        // An escape is ASCII, so what follows it begins with a whole character.
        rest = cut::text(rest, len, rest.len());
        // The backslash of an escape is taken with it: a second one begins another.
        match rest.split_once('\\') {
            Some(parts) => (plain, rest) = parts,
            None => break,
        }
    }
    text.push_str(rest);
    Cow::Owned(text)
}

/// The character of an escape and its length, without the backslash.
fn escape(behind: &[u8]) -> Option<(char, usize)> {
    Some(match behind {
        [b'n', ..] => ('\n', 1),
        [b't', ..] => ('\t', 1),
        [b'r', ..] => ('\r', 1),
        [b'b', ..] => ('\u{8}', 1),
        [b'f', ..] => ('\u{c}', 1),
        [c @ (b'"' | b'\\' | b'/'), ..] => (char::from(*c), 1),
        [b'u', digits @ ..] => {
            let unit = hex(digits.get(..4)?)?;
            let low = || match digits.get(4..10)? {
                [b'\\', b'u', low @ ..] => hex(low).filter(|low| (0xDC00..=0xDFFF).contains(low)),
                _ => None,
            };
            match (unit, low()) {
                (0xD800..=0xDBFF, Some(low)) => {
                    let joined = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
                    (char::from_u32(joined).unwrap_or(char::REPLACEMENT_CHARACTER), 11)
                }
                _ => (char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER), 5),
            }
        }
        _ => return None,
    })
}
