//! JSON text that grows while a record is walked: resources, nested values, span events and links.
//!
//! Both encodings write through here, so the same content becomes the same text. An object keeps the
//! last of its duplicate keys, as a row keeps the last of its duplicate attributes (C25).

use std::collections::HashMap;

use storage::record::{Value, json_text};

/// Objects up to this many keys are searched pair by pair for duplicates; larger ones by hash, so that
/// a map of a million keys costs a million steps. Chosen: real resources have about ten.
const PAIRWISE_MAX: usize = 16;

/// A reused buffer of JSON text.
#[derive(Debug, Default)]
pub(super) struct JsonText {
    out: Vec<u8>,
    entries: Vec<Entry>,
}

/// Where an object's entry begins, and where its key ends.
#[derive(Clone, Copy, Debug)]
struct Entry {
    start: usize,
    key_end: usize,
}

/// An object that is open; [`JsonText::close_object`] takes it.
#[derive(Debug)]
#[must_use]
pub(super) struct Object {
    open_at: usize,
    first_entry: usize,
}

impl JsonText {
    pub(super) fn clear(&mut self) {
        self.out.clear();
        self.entries.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.out.len()
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.out.capacity() + self.entries.capacity() * size_of::<Entry>()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.out
    }

    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.out).expect("JSON text is made of checked text and ASCII")
    }

    /// Appends what is JSON text already.
    pub(super) fn raw(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    /// Begins the next element of an array that was opened at `open_at`.
    pub(super) fn element(&mut self, open_at: usize) {
        self.out.push(if self.out.len() == open_at { b'[' } else { b',' });
    }

    /// Ends an array that was opened at `open_at`.
    pub(super) fn close_array(&mut self, open_at: usize) {
        if self.out.len() == open_at {
            self.out.push(b'[');
        }
        self.out.push(b']');
    }

    pub(super) fn open_object(&mut self) -> Object {
        self.out.push(b'{');
        Object { open_at: self.out.len(), first_entry: self.entries.len() }
    }

    pub(super) fn key(&mut self, object: &Object, key: &str) {
        if self.entries.len() > object.first_entry {
            self.out.push(b',');
        }
        let start = self.out.len();
        json_text::string(&mut self.out, key);
        self.entries.push(Entry { start, key_end: self.out.len() });
        self.out.push(b':');
    }

    /// As [`Self::key`], for a value that stands at `value_at` already, behind whatever was before it.
    pub(super) fn key_before(&mut self, object: &Object, key: &str, value_at: usize) {
        let value_len = self.out.len() - value_at;
        self.key(object, key);
        self.out[value_at..].rotate_left(value_len);
        let entry = self.entries.last_mut().expect("the key has just become an entry");
        entry.start -= value_len;
        entry.key_end -= value_len;
    }

    /// Ends the object; true where a key came twice.
    #[expect(clippy::needless_pass_by_value, reason = "an object is closed once")]
    pub(super) fn close_object(&mut self, object: Object) -> bool {
        let has_duplicate = self.has_duplicate(object.first_entry);
        if has_duplicate {
            self.keep_last(object.first_entry);
        }
        self.entries.truncate(object.first_entry);
        self.out.push(b'}');
        has_duplicate
    }

    /// Bytes that the object's entries take so far.
    pub(super) fn len_of(&self, object: &Object) -> usize {
        self.out.len() - object.open_at
    }

    /// Forgets the object's entries: it is too large to be kept, and only walked on.
    pub(super) fn forget_entries(&mut self, object: &Object) {
        self.out.truncate(object.open_at);
        self.entries.truncate(object.first_entry);
    }

    /// Forgets the elements of an array that was opened at `open_at`, as [`Self::forget_entries`].
    pub(super) fn forget_elements(&mut self, open_at: usize) {
        self.out.truncate(open_at);
    }

    /// Entries that the object has so far.
    pub(super) fn entry_count(&self, object: &Object) -> usize {
        self.entries.len() - object.first_entry
    }

    pub(super) fn value(&mut self, value: &Value<'_>) {
        json_text::value(&mut self.out, value);
    }

    /// Appends nanoseconds since 1970 as RFC 3339 with nine digits, in quotes.
    pub(super) fn time(&mut self, unix_ns: u64) {
        self.out.push(b'"');
        write_time(&mut self.out, unix_ns);
        self.out.push(b'"');
    }

    /// Appends bytes as lower-case hex, in quotes.
    pub(super) fn hex(&mut self, bytes: &[u8]) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        self.out.push(b'"');
        for byte in bytes {
            self.out.push(DIGITS[usize::from(byte >> 4)]);
            self.out.push(DIGITS[usize::from(byte & 15)]);
        }
        self.out.push(b'"');
    }

    fn key_of(&self, entry: Entry) -> &[u8] {
        &self.out[entry.start..entry.key_end]
    }

    fn has_duplicate(&self, first_entry: usize) -> bool {
        let entries = &self.entries[first_entry..];
        if entries.len() <= PAIRWISE_MAX {
            entries.iter().enumerate().any(|(at, entry)| {
                entries[..at].iter().any(|earlier| self.key_of(*earlier) == self.key_of(*entry))
            })
        } else {
            let mut keys = std::collections::HashSet::with_capacity(entries.len());
            !entries.iter().all(|entry| keys.insert(self.key_of(*entry)))
        }
    }

    /// Rewrites the object's entries without those whose key comes again.
    fn keep_last(&mut self, first_entry: usize) {
        let entries = &self.entries[first_entry..];
        let last: HashMap<&[u8], usize> =
            entries.iter().enumerate().map(|(at, entry)| (self.key_of(*entry), at)).collect();
        let mut kept = Vec::with_capacity(self.out.len() - entries[0].start);
        for (at, entry) in entries.iter().enumerate() {
            if last[self.key_of(*entry)] != at {
                continue;
            }
            if !kept.is_empty() {
                kept.push(b',');
            }
            // The next entry begins behind a comma.
            let end = entries.get(at + 1).map_or(self.out.len(), |next| next.start - 1);
            kept.extend_from_slice(&self.out[entry.start..end]);
        }
        let start = entries[0].start;
        self.out.truncate(start);
        self.out.extend_from_slice(&kept);
    }
}

/// Appends nanoseconds since 1970 as `2026-01-02T03:04:05.123456789Z`; every `u64` is a time before 2555.
fn write_time(out: &mut Vec<u8>, unix_ns: u64) {
    let (seconds, nanos) = (unix_ns / 1_000_000_000, unix_ns % 1_000_000_000);
    let (days, second_of_day) = (seconds / 86_400, seconds % 86_400);
    // Civil date from days, by eras of 400 years that begin in March (H. Hinnant, "chrono-compatible
    // low-level date algorithms"); all values are positive here.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    for (value, width, end) in [
        (year, 4, b'-'),
        (month, 2, b'-'),
        (day, 2, b'T'),
        (second_of_day / 3_600, 2, b':'),
        (second_of_day / 60 % 60, 2, b':'),
        (second_of_day % 60, 2, b'.'),
        (nanos, 9, b'Z'),
    ] {
        digits(out, value, width);
        out.push(end);
    }
}

fn digits(out: &mut Vec<u8>, mut value: u64, width: usize) {
    let mut text = [b'0'; 9];
    for digit in text[..width].iter_mut().rev() {
        *digit = b'0' + u8::try_from(value % 10).expect("a remainder below 10");
        value /= 10;
    }
    out.extend_from_slice(&text[..width]);
}

#[cfg(test)]
mod tests {
    use storage::record::Value;

    use super::JsonText;

    #[test]
    fn an_object_keeps_the_last_of_duplicate_keys() {
        fn check(keys: &[&str], expected: &str) {
            let mut text = JsonText::default();
            let object = text.open_object();
            for (at, key) in keys.iter().enumerate() {
                text.key(&object, key);
                let inner = text.open_object();
                text.key(&inner, "n");
                text.value(&Value::Int(i64::try_from(at).unwrap()));
                assert!(!text.close_object(inner));
            }
            assert_eq!(text.close_object(object), expected.matches("n\":").count() < keys.len());
            assert_eq!(text.as_str(), expected);
        }
        check(&[], "{}");
        check(&["a", "b"], r#"{"a":{"n":0},"b":{"n":1}}"#);
        check(&["a", "a"], r#"{"a":{"n":1}}"#);
        check(&["a", "b", "a", "b", "c"], r#"{"a":{"n":2},"b":{"n":3},"c":{"n":4}}"#);
        let many: Vec<String> = (0..40).map(|n| format!("k{}", n % 39)).collect();
        let rest: Vec<String> = (1..40).map(|n| format!(r#""k{}":{{"n":{n}}}"#, n % 39)).collect();
        check(&many.iter().map(String::as_str).collect::<Vec<_>>(), &format!("{{{}}}", rest.join(",")));
    }

    #[test]
    fn times_are_rfc_3339_with_nanoseconds() {
        fn check(unix_ns: u64, expected: &str) {
            let mut text = JsonText::default();
            text.time(unix_ns);
            assert_eq!(text.as_str(), format!("\"{expected}\""));
        }
        check(0, "1970-01-01T00:00:00.000000000Z");
        check(951_782_400_000_000_001, "2000-02-29T00:00:00.000000001Z");
        check(1_704_067_199_999_999_999, "2023-12-31T23:59:59.999999999Z");
        check(1_544_712_660_000_000_000, "2018-12-13T14:51:00.000000000Z");
        check(u64::MAX, "2554-07-21T23:34:33.709551615Z");
    }
}
