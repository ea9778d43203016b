//! A strict JSON pull parser: the caller asks for the next thing, nothing is built in between.
//!
//! ```text
//!   let mut json = Parser::new(text, 64);
//!   json.object()?;                                  // the value must be an object
//!   while let Some(key) = json.key()? {              // members in the order of the text
//!       match key.text(&mut scratch) {
//!           "time" => time = json.string()?,         // borrowed from the text, unescaped on demand
//!           "payload" => payload = json.raw_value()?,
//!           _ => json.skip_value()?,
//!       }
//!   }
//!   json.end()?;                                     // nothing but white space may follow
//! ```
//! After each key exactly one value must be taken; a container that [`Parser::next`] has opened is walked
//! with [`Parser::key`] or [`Parser::element`] until they say it is closed. Everything passed over is
//! validated by RFC 8259 and a little more: lone surrogates, numbers no double can hold and nesting past
//! `depth_max` are refused. Work is linear in the text, memory is constant, nothing recurses.

mod compact;
mod error;
mod find;
mod keys;
mod nesting;
mod number;
mod text;

pub use error::{Error, ErrorKind};
pub use keys::KeySet;
pub use number::Number;
pub use text::Text;

use nesting::Nesting;

/// What [`Parser::next`] found.
#[derive(Clone, Copy, Debug)]
pub enum Value<'t> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number.
    Number(Number<'t>),
    /// A string.
    Text(Text<'t>),
    /// An object that is open now: walk it with [`Parser::key`].
    Object,
    /// An array that is open now: walk it with [`Parser::element`].
    Array,
}

/// The type of the next value, told by its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// `null`
    Null,
    /// `true` or `false`
    Bool,
    /// A number.
    Number,
    /// A string.
    Text,
    /// An object.
    Object,
    /// An array.
    Array,
}

/// A place in a JSON text. It is `Copy`: keep one to come back to where it stood.
#[derive(Clone, Copy, Debug)]
pub struct Parser<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
    depth_max: usize,
    /// A container was opened and nothing of it is read yet: no comma is due.
    fresh: bool,
}

impl<'t> Parser<'t> {
    /// Starts at the first byte of `text`; containers nest `depth_max` deep at most.
    #[must_use]
    pub fn new(text: &'t str, depth_max: usize) -> Self {
        Self { text, at: 0, depth: 0, depth_max, fresh: false }
    }

    /// As [`Self::new`], for bytes that are not known to be UTF-8; a byte order mark is passed over.
    ///
    /// # Errors
    /// `NotUtf8`, with the first bad byte's offset.
    pub fn from_bytes(bytes: &'t [u8], depth_max: usize) -> Result<Self, Error> {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        match simdutf8::basic::from_utf8(bytes) {
            Ok(text) => Ok(Self::new(text, depth_max)),
            Err(_) => Err(Error {
                kind: ErrorKind::NotUtf8,
                offset: std::str::from_utf8(bytes).map_or_else(|e| e.valid_up_to(), str::len),
                why: "invalid UTF-8",
            }),
        }
    }

    /// The next byte's offset in the text.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.at
    }

    /// Containers that are open.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// The type of the next value, which stays unread.
    ///
    /// # Errors
    /// `Invalid` where no value begins.
    pub fn peek(&mut self) -> Result<Type, Error> {
        match self.skip_space() {
            Some(b'{') => Ok(Type::Object),
            Some(b'[') => Ok(Type::Array),
            Some(b'"') => Ok(Type::Text),
            Some(b'-' | b'0'..=b'9') => Ok(Type::Number),
            Some(b't' | b'f') => Ok(Type::Bool),
            Some(b'n') => Ok(Type::Null),
            Some(_) => Err(self.invalid("no value begins here")),
            None => Err(self.invalid("the text ends where a value is due")),
        }
    }

    /// Reads a scalar, or opens a container.
    ///
    /// # Errors
    /// `Invalid`, and `TooDeep` where a container would nest past the limit.
    #[expect(clippy::should_implement_trait, reason = "it fails, and its end is not the end of an iteration")]
    pub fn next(&mut self) -> Result<Value<'t>, Error> {
        match self.peek()? {
            Type::Object => self.open().map(|()| Value::Object),
            Type::Array => self.open().map(|()| Value::Array),
            Type::Text => self.scan_text().map(Value::Text),
            Type::Number => self.scan_number().map(Value::Number),
            Type::Bool => self.scan_bool().map(Value::Bool),
            Type::Null => self.scan_word("null").map(|()| Value::Null),
        }
    }

    /// Opens the object that must come next.
    ///
    /// # Errors
    /// `WrongType` for any other value, and as [`Self::next`].
    pub fn object(&mut self) -> Result<(), Error> {
        self.due(Type::Object, "an object is due here")?;
        self.open()
    }

    /// Opens the array that must come next.
    ///
    /// # Errors
    /// `WrongType` for any other value, and as [`Self::next`].
    pub fn array(&mut self) -> Result<(), Error> {
        self.due(Type::Array, "an array is due here")?;
        self.open()
    }

    /// Reads the string that must come next.
    ///
    /// # Errors
    /// `WrongType` for any other value, and as [`Self::next`].
    pub fn string(&mut self) -> Result<Text<'t>, Error> {
        self.due(Type::Text, "a string is due here")?;
        self.scan_text()
    }

    /// Reads the number that must come next.
    ///
    /// # Errors
    /// `WrongType` for any other value, and as [`Self::next`].
    pub fn number(&mut self) -> Result<Number<'t>, Error> {
        self.due(Type::Number, "a number is due here")?;
        self.scan_number()
    }

    /// Reads the boolean that must come next.
    ///
    /// # Errors
    /// `WrongType` for any other value, and as [`Self::next`].
    pub fn bool(&mut self) -> Result<bool, Error> {
        self.due(Type::Bool, "true or false is due here")?;
        self.scan_bool()
    }

    /// Reads a `null` if one comes next, and says whether it did.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub fn null(&mut self) -> Result<bool, Error> {
        Ok(self.peek()? == Type::Null && self.scan_word("null").map(|()| true)?)
    }

    /// Reads the next member's key and colon; `None` where the open object ends, which closes it.
    ///
    /// # Errors
    /// `Invalid`.
    pub fn key(&mut self) -> Result<Option<Text<'t>>, Error> {
        if !self.goes_on(b'}', "a comma or the end of the object is due here")? {
            return Ok(None);
        }
        if self.skip_space() != Some(b'"') {
            return Err(self.invalid("a key is due here"));
        }
        let key = self.scan_text()?;
        if self.skip_space() != Some(b':') {
            return Err(self.invalid("a colon is due here"));
        }
        self.at += 1;
        Ok(Some(key))
    }

    /// Whether the open array has another element, which then comes next; false closes the array.
    ///
    /// # Errors
    /// `Invalid`.
    pub fn element(&mut self) -> Result<bool, Error> {
        self.goes_on(b']', "a comma or the end of the array is due here")
    }

    /// Validates the next value, however deep, and passes over it.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub fn skip_value(&mut self) -> Result<std::ops::Range<usize>, Error> {
        self.skip_space();
        let start = self.at;
        let mut open = Nesting::default();
        loop {
            match self.next()? {
                Value::Object => open.push(true),
                Value::Array => open.push(false),
                _ => {}
            }
            // Close what ends here; stop at the next value to read, or at the end of the one we came for.
            while let Some(is_object) = open.last() {
                if if is_object { self.key()?.is_some() } else { self.element()? } {
                    break;
                }
                open.pop();
            }
            if open.last().is_none() {
                return Ok(start..self.at);
            }
        }
    }

    /// Passes over the next value by its brackets and quotes alone, at several times the speed of
    /// [`Self::skip_value`].
    ///
    /// What is no JSON within it is not noticed: for a value that is read afterwards, from a copy of this parser
    /// that stands before it. Where that reading succeeds it ends where this did.
    ///
    /// # Errors
    /// `Invalid` where the text ends within the value, `TooDeep` as [`Self::next`].
    pub fn pass_over(&mut self) -> Result<(), Error> {
        let bytes = self.text.as_bytes();
        if !matches!(self.skip_space(), Some(b'{' | b'[')) {
            return self.skip_value().map(drop);
        }
        let mut open = 0_usize;
        loop {
            self.at = find::quote_or_bracket(bytes, self.at);
            match self.peek_byte() {
                Some(b'"') => {
                    self.at = find::quote_or_escape(bytes, self.at + 1);
                    while self.peek_byte() == Some(b'\\') {
                        self.at = find::quote_or_escape(bytes, self.at + 2);
                    }
                }
                Some(b'{' | b'[') if self.depth + open >= self.depth_max => {
                    return Err(self.too_deep());
                }
                Some(b'{' | b'[') => open += 1,
                Some(_) => open -= 1,
                None => {
                    self.at = bytes.len();
                    return Err(self.invalid("the text ends within a value"));
                }
            }
            self.at += 1;
            if open == 0 {
                return Ok(());
            }
        }
    }

    /// Validates the next value and returns its text as it stands.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub fn raw_value(&mut self) -> Result<&'t str, Error> {
        let range = self.skip_value()?;
        Ok(&self.text[range])
    }

    /// Makes sure that nothing but white space is left.
    ///
    /// # Errors
    /// `Invalid` where something is.
    pub fn end(&mut self) -> Result<(), Error> {
        match self.skip_space() {
            None => Ok(()),
            Some(_) => Err(self.invalid("the text goes on after its value")),
        }
    }

    fn invalid(&self, why: &'static str) -> Error {
        Error { kind: ErrorKind::Invalid, offset: self.at, why }
    }

    fn too_deep(&self) -> Error {
        Error { kind: ErrorKind::TooDeep, offset: self.at, why: "values nest too deep" }
    }

    fn due(&mut self, r#type: Type, why: &'static str) -> Result<(), Error> {
        if self.peek()? == r#type {
            Ok(())
        } else {
            Err(Error { kind: ErrorKind::WrongType, offset: self.at, why })
        }
    }

    fn peek_byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) -> Option<u8> {
        loop {
            let byte = self.peek_byte()?;
            // Nearly always false at once: machines write JSON without white space.
            if byte > b' ' || !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    fn open(&mut self) -> Result<(), Error> {
        if self.depth >= self.depth_max {
            return Err(self.too_deep());
        }
        self.depth += 1;
        self.at += 1;
        self.fresh = true;
        Ok(())
    }

    /// Passes over the comma before the next member or element, or over the end of the container.
    fn goes_on(&mut self, end: u8, why: &'static str) -> Result<bool, Error> {
        let byte = self.skip_space();
        let fresh = std::mem::take(&mut self.fresh);
        if byte == Some(end) {
            self.at += 1;
            self.depth = self.depth.saturating_sub(1);
            return Ok(false);
        }
        if !fresh {
            if byte != Some(b',') {
                return Err(self.invalid(why));
            }
            self.at += 1;
        }
        Ok(true)
    }

    fn scan_text(&mut self) -> Result<Text<'t>, Error> {
        let (text, end) = text::scan(self.text, self.at + 1)?;
        self.at = end;
        Ok(text)
    }

    fn scan_number(&mut self) -> Result<Number<'t>, Error> {
        let (number, end) = number::scan(self.text, self.at)?;
        self.at = end;
        Ok(number)
    }

    fn scan_bool(&mut self) -> Result<bool, Error> {
        if self.peek_byte() == Some(b't') {
            self.scan_word("true").map(|()| true)
        } else {
            self.scan_word("false").map(|()| false)
        }
    }

    fn scan_word(&mut self, word: &str) -> Result<(), Error> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(self.invalid("not one of true, false, null"));
        }
        self.at += word.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
