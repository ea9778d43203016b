//! Writing a value again as it goes by, in its one shortest spelling.

use storage::record::json_text;

use super::nesting::Nesting;
use super::{Error, KeySet, Parser, Value};

impl Parser<'_> {
    /// Appends the next value in its shortest form: no white space, and only those escapes that must be,
    /// so that one text has one spelling (a scrubber then sees `@` where `\u0040` was sent). Numbers stay
    /// as sent, digit by digit.
    ///
    /// With `keys`, an object naming a key twice is counted there (see [`KeySet::duplicates`]).
    ///
    /// # Errors
    /// As [`Self::next`].
    pub fn compact_value(
        &mut self,
        out: &mut Vec<u8>,
        scratch: &mut String,
        mut keys: Option<&mut KeySet>,
    ) -> Result<(), Error> {
        let mut open = Nesting::default();
        loop {
            match self.next()? {
                Value::Object => {
                    out.push(b'{');
                    open.push(true);
                    if let Some(keys) = &mut keys {
                        keys.enter();
                    }
                }
                Value::Array => {
                    out.push(b'[');
                    open.push(false);
                }
                Value::Null => out.extend_from_slice(b"null"),
                Value::Bool(value) => json_text::bool(out, value),
                Value::Number(number) => out.extend_from_slice(number.as_str().as_bytes()),
                Value::Text(text) => json_text::string(out, text.text(scratch)),
            }
            while let Some(is_object) = open.last() {
                let first = self.fresh;
                if is_object {
                    if let Some(key) = self.key()? {
                        if !first {
                            out.push(b',');
                        }
                        let key = key.text(scratch);
                        if let Some(keys) = &mut keys {
                            keys.insert(key);
                        }
                        json_text::string(out, key);
                        out.push(b':');
                        break;
                    }
                    if let Some(keys) = &mut keys {
                        keys.leave();
                    }
                } else if self.element()? {
                    if !first {
                        out.push(b',');
                    }
                    break;
                }
                out.push(if is_object { b'}' } else { b']' });
                open.pop();
            }
            if open.last().is_none() {
                return Ok(());
            }
        }
    }
}
