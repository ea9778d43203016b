//! Which attribute a key names: by position first, by hash when that misses.
//!
//! Keys stay remembered between chunks. How many a chunk may add is bounded, because a sender chooses them:
//! a key beyond the bound has no column and no entry here, and its value goes to `_overflow`.

use super::{AttributeColumn, Draft};
use crate::record::kind::Kind;
use crate::record::schema;

/// Keys that a lane remembers between chunks before it starts anew. Chosen: eight full datasets.
pub(super) const REMEMBERED_KEYS_MAX: usize = 4_096;

/// Keys that one chunk may add to those that are remembered. Chosen: eight full datasets; more distinct keys are
/// data, not names.
pub(super) const NEW_KEYS_MAX: usize = 4_096;

impl Draft {
    /// The attribute of a key; `None` for a key beyond what one chunk may add.
    pub(super) fn resolve(&mut self, key: &str) -> Option<usize> {
        if let Some(attribute) = self.attributes.get(self.next)
            && &*attribute.key == key
        {
            self.next += 1;
            return Some(self.next - 1);
        }
        let index = match self.by_key.get(key) {
            Some(index) => *index as usize,
            None if self.attributes.len() >= self.keys_before + NEW_KEYS_MAX => return None,
            None => self.remember(key),
        };
        self.next = index + 1;
        Some(index)
    }

    fn remember(&mut self, key: &str) -> usize {
        let index = self.attributes.len();
        let short = u32::try_from(index).expect("remembered keys are bounded");
        let taken = *self.folded.entry(key.to_lowercase()).or_insert(short) != short;
        self.attributes.push(AttributeColumn::new(key, !taken && is_nameable(self.kind, key)));
        self.by_key.insert(key.into(), short);
        index
    }

    /// Forgets keys at the end of a chunk where they are more than the bound, or where one was renamed.
    pub(super) fn forget_keys(&mut self) {
        if self.attributes.len() > REMEMBERED_KEYS_MAX || self.attributes.len() != self.by_key.len() {
            // Not cleared: room for the keys of one odd body must not stay with the lane.
            self.attributes = Vec::new();
            self.by_key = std::collections::HashMap::new();
            self.folded = std::collections::HashMap::new();
        }
        self.keys_before = self.attributes.len();
    }
}

/// Whether Delta allows the key as a column's name: no space, `,;{}()=`, control; and it is not empty.
///
/// A key that begins with `attr.` overflows, because `attr.<key>` is where an attribute named like a
/// column stands.
/// One that differs from a fixed column only in case overflows too: Delta's names ignore case.
fn is_nameable(kind: Kind, key: &str) -> bool {
    !key.is_empty()
        && (schema::is_fixed(kind, key) || !schema::is_fixed(kind, &key.to_lowercase()))
        && !key.starts_with("attr.")
        && !key.starts_with('_')
        && !key.chars().any(|c| c.is_control() || matches!(c, ' ' | ',' | ';' | '{' | '}' | '(' | ')' | '='))
}
