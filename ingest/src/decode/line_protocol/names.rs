//! Names within one record: a tag stands once, the last field of a key wins, and a tag named like a field of
//! its line becomes `tag.<key>`.
//!
//! Nearly every record has distinct keys, so a small filter answers that first; only where it cannot tell are
//! the keys sorted. Both are bounded by `n log n` whatever the sender chooses.

use std::collections::HashSet;

use super::Fault;
use super::scan::{Record, Texts};

/// Entries up to which the filter is worth asking: beyond, its bits fill up.
const FILTERED_MAX: usize = 64;

/// `tag.` in front of a key at most this often, where a line has the shorter names already.
const TAG_PREFIXES_MAX: u8 = 4;

/// Marks replaced fields and renamed tags; true where a field stands twice.
pub(super) fn settle(record: &mut Record, texts: Texts<'_>) -> Result<bool, Fault> {
    if are_distinct(record, texts) {
        return Ok(false);
    }
    let mut order = std::mem::take(&mut record.order);
    order.clear();
    order.extend(0..u32::try_from(record.entries.len()).expect("a line has far fewer than 2^32 fields"));
    let key_of = |record: &Record, at: u32| texts.get(record.entries[at as usize].key);
    order.sort_unstable_by(|a, b| key_of(record, *a).cmp(key_of(record, *b)).then(a.cmp(b)));
    let settled = settle_sorted(record, texts, &order);
    record.order = order;
    settled
}

fn settle_sorted(record: &mut Record, texts: Texts<'_>, order: &[u32]) -> Result<bool, Fault> {
    let mut repeated = false;
    let mut clashing = Vec::new();
    for at in 1..order.len() {
        let (one, next) = (order[at - 1] as usize, order[at] as usize);
        if texts.get(record.entries[one].key) != texts.get(record.entries[next].key) {
            continue;
        }
        // Of one key, tags stand before fields.
        match (one < record.tag_count, next < record.tag_count) {
            (true, true) => return Err(Fault::new("duplicate_tag", "a tag stands twice in a line")),
            (true, false) => clashing.push(one),
            _ => {
                record.entries[one].replaced = true;
                repeated = true;
            }
        }
    }
    let is_key = |record: &Record, name: &str| {
        order.binary_search_by(|at| texts.get(record.entries[*at as usize].key).cmp(name)).is_ok()
    };
    let mut renamed = HashSet::new();
    for at in clashing {
        let mut name = texts.get(record.entries[at].key).to_owned();
        let mut prefixes = 0;
        while prefixes == 0 || is_key(record, &name) || renamed.contains(&name) {
            prefixes += 1;
            if prefixes > TAG_PREFIXES_MAX {
                return Err(Fault::new(
                    "duplicate_tag",
                    "a tag's name is taken by fields and tags of its line",
                ));
            }
            name.insert_str(0, "tag.");
        }
        record.entries[at].tag_prefixes = prefixes;
        renamed.insert(name);
    }
    Ok(repeated)
}

/// Whether no two keys are equal; false also where finding out is better done by sorting.
fn are_distinct(record: &Record, texts: Texts<'_>) -> bool {
    if record.entries.len() > FILTERED_MAX {
        return false;
    }
    let mut seen = [0u64; 64];
    record.entries.iter().enumerate().all(|(at, entry)| {
        let key = texts.get(entry.key);
        let hash = hash(key.as_bytes());
        let word = &mut seen[(hash >> 58) as usize];
        let bit = 1 << (hash >> 52 & 63);
        let is_new = *word & bit == 0;
        *word |= bit;
        // Lines of one shape hit the same bits, so a false hit must not cost a sort on each of them.
        is_new || record.entries[..at].iter().all(|earlier| texts.get(earlier.key) != key)
    })
}

/// Mixes a key's length and its first and last eight bytes.
fn hash(key: &[u8]) -> u64 {
    let (first, last) = match (key.first_chunk::<8>(), key.last_chunk::<8>()) {
        (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
        _ => (key.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)), 0),
    };
    // The multiplier is 2^64 divided by the golden ratio, made odd: it spreads into the upper bits.
    (first ^ last.rotate_left(29) ^ key.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
