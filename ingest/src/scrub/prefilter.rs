//! The one pass that every byte costs: which rows could hold anything at all.
//!
//! One automaton knows every trigger: the byte classes (an `@` between letters, runs of digits, `+` and a
//! digit), the names of secret fields, the prefixes of keys and tokens, and the marks of encodings. It stops at the first
//! hit of a row and goes on with the next row, so a hit costs no second look at that row. A second, table-free
//! scan looks for base64, base32 and hex that decode to text ([`super::wrapped::has_wrapped_text`]).

use std::ops::Range;

use regex::bytes::{Regex, RegexBuilder};
use storage::record::TextColumn;

use super::detectors::command;
use super::fields::Fields;
use super::fold;
use super::pattern::Pattern;
use super::wrapped::has_wrapped_text;
use crate::cut;

/// Triggers that are not names of fields. Letters without `(?i)` are taken as they stand.
const TRIGGERS: &[&str] = &[
    // E-mail, in UTF-8 too.
    r"[A-Za-z0-9_.%+'\x80-\xFF-]@[A-Za-z0-9\[\x80-\xFF]",
    // Encodings: percent, JSON and HTML escapes. What only folding shows has a trigger of its own (`fold::trigger`).
    r"%[2-7][0-9A-Fa-f]|%[uU][0-9A-Fa-f]{4}",
    r"\\u[0-9A-Fa-f{]|\\U000|\\x[2-7{]|\\[0-7]{3}|&#|&commat|&quot|&equals",
    // Bytes in JSON: what is in them shows only once they are decoded.
    r"\$bytes",
    // Cards, social security and phone numbers.
    r"[0-9](?:[ ._+/-]{0,3}[0-9]){12}",
    r"[0-9]{3} ?- ?[0-9]{2} ?- ?[0-9]{4}",
    r"\+[1-9][0-9 .(-]",
    r"\([2-9][0-9]{2}\)|[2-9][0-9]{2}[.-][0-9]{3}[.-][0-9]{4}",
    r"(?i:(?:phone|mobile|msisdn|fax)(?:[_ -]?(?:number|no))?[\x22']?[:=])|(?i:ssn|social.security)[^A-Za-z]",
    // IBAN.
    r"[A-Z]{2}[0-9]{2}[ .+/-]{0,3}[A-Z0-9]{4}[ .+/-]{0,3}[A-Z0-9]{4}|(?i:iban)[^A-Za-z]",
    // Tokens and keys; what the detector's own forms begin with, or hold.
    r"eyJ|ewo|-----BEGIN",
    r"(?i:bearer|basic)[ :=%\x80-\xFF]",
    r"://[^/ ]*@",
    r"[?&](?i:(?:sig|signature|x-amz-|x-goog-|auth|key|code_verifier)[a-z-]*)=",
    r"AKIA|ASIA|ABIA|ACCA|A3T|bedrock-api|gh[pousr]_|github_pat_|gl(?:pat|dt|rt|cbt|ptt|ft|imt|agent|soat|oas|ffct|wt)-",
    r"xox[abeoprs]|xapp-|hooks\.slack|AIza|GOCSPX-|ya29\.|[sr]k_(?:live|test|prod)|whsec_|npm_|pypi-|SG\.|SK[0-9a-z]{8}",
    r"sk-[a-zA-Z0-9]|pplx-|hf_|fm_[a-z]{3}_|hv[bs]\.|\.atlasv1\.|sgp_|sntry[su]_|gl(?:c|sa)_|ntn_|sq0|EAAA|shp(?:at|ca|pa|ss)_",
    r"do[opr]_v1|dckr_|lin_api|rdme_|pul-|pnu_|NRAK|dapi|LTAI|PMAK|xkeysib|AGE-SECRET|ops_|A3-|sha256~|s-s4t2|tk-us|v1\.0-|AKC",
    r"[0-9a-f]-us[0-9]|[0-9]{8}:[A-Za-z]|[0-9]Q~|\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{8}",
];

/// As [`TRIGGERS`], for addresses.
const IP_TRIGGERS: &str = r"[0-9]\.[0-9]{1,3}\.[0-9]|[0-9A-Fa-f]?:[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:]";

/// Knows which rows of a column are worth a look.
#[derive(Debug, Clone)]
pub(super) struct Prefilter {
    triggers: Pattern<Regex>,
}

impl Prefilter {
    /// A prefilter for these names beside the built-in triggers.
    pub(super) fn new(fields: &Fields, has_ip: bool) -> Result<Self, String> {
        let mut pattern = TRIGGERS.join("|");
        pattern.push('|');
        pattern.push_str(&fold::trigger());
        pattern.push('|');
        pattern.push_str(command::TRIGGER);
        if has_ip {
            pattern.push('|');
            pattern.push_str(IP_TRIGGERS);
        }
        for name in fields.names() {
            // `api_key`, `api-key`, `apiKey`: separators may stand between any two letters of a name.
            pattern.push_str("|(?i:");
            for (at, c) in name.chars().enumerate() {
                if at > 0 {
                    pattern.push_str("[-_. ]*");
                }
                if c.is_ascii() {
                    pattern.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
                } else {
                    // Letters outside ASCII have no cheap other case: any of them will do.
                    pattern.push_str(r"[\x80-\xFF]+");
                }
            }
            // It must end a name (`SpanID` holds `pan`); its plural counts too.
            pattern.push_str("s?[-_ ]*[^A-Za-z0-9._-])");
        }
        // The automaton's states are made as the data needs them; within this bound it is never thrown away
        // on text we have seen, and beyond it the search stays linear.
        let triggers = RegexBuilder::new(&pattern)
            .unicode(false)
            .size_limit(16 << 20)
            .dfa_size_limit(8 << 20)
            .build()
            .map_err(|_| "the names of fields make too large a pattern".to_owned())?;
        Ok(Self { triggers: Pattern::new(triggers) })
    }

    /// Gives back what searching has learnt.
    pub(super) fn forget(&self) {
        self.triggers.forget();
    }

    /// Whether a value is worth a look.
    pub(super) fn is_hit(&self, value: &[u8]) -> bool {
        self.triggers.get().is_match(value) || has_wrapped_text(value)
    }

    /// Adds the numbers of those of `among` that are worth a look, rising; answers how many bytes it looked at.
    pub(super) fn rows(&self, column: &TextColumn, among: Range<usize>, rows: &mut Vec<usize>) -> usize {
        let offsets = column.offsets();
        let start_of = |row: usize| {
            offsets.get(row).and_then(|offset| usize::try_from(*offset).ok()).unwrap_or(column.bytes().len())
        };
        let end = start_of(among.end);
        let bytes = cut::bytes(column.bytes(), 0, end);
        let (mut at, mut unseen) = (start_of(among.start), among.start);
        let (begun, triggers) = (at, self.triggers.get());
        while at < end {
            let hit = triggers.shortest_match_at(bytes, at);
            let row = hit.map_or(among.end, |end| row_of(offsets, end.saturating_sub(1)));
            // What lies between this hit and the last one has no trigger, but may be wrapped.
            for clean in unseen..row {
                if has_wrapped_text(cut::bytes(bytes, start_of(clean), start_of(clean + 1))) {
                    rows.push(clean);
                }
            }
            if hit.is_none() {
                break;
            }
            rows.push(row);
            unseen = row + 1;
            at = start_of(row + 1);
        }
        end - begun
    }
}

/// The row that holds the byte at `at`.
fn row_of(offsets: &[i32], at: usize) -> usize {
    offsets
        .partition_point(|offset| usize::try_from(*offset).is_ok_and(|offset| offset <= at))
        .saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use storage::record::TextColumn;

    use crate::scrub::Rules;

    #[test]
    fn what_searching_learnt_is_forgotten() {
        let prefilter = &Rules::default_on().prefilter;
        let learnt = Arc::clone(&prefilter.triggers.get());
        prefilter.forget();
        assert!(!Arc::ptr_eq(&learnt, &prefilter.triggers.get()));
        assert!(prefilter.is_hit(b"jane@example.com"));
    }

    #[test]
    fn what_is_found_piece_by_piece_is_what_is_found_at_once() {
        let rules = Rules::default_on();
        let mut column = TextColumn::default();
        for row in 0..500_usize {
            match row % 7 {
                0 => column.push(b"someone@example.com"),
                1 => column.push(b""),
                2 => column.push(format!("row {row} of ordinary words").as_bytes()),
                3 => column.push(b"Z2hwXzAxMjM0NTY3ODlhYmNkZWZnaGlqa2xtbm9wcXJzdHV2d3h5eg=="),
                // A trigger only across the border of two rows is none.
                4 => column.push(b"begins@"),
                5 => column.push(b"ends"),
                _ => column.push(b"4111 1111 1111 1111"),
            }
        }
        let mut at_once = Vec::new();
        assert_eq!(rules.prefilter.rows(&column, 0..500, &mut at_once), column.bytes().len());
        assert!(at_once.len() > 200, "{}", at_once.len());
        for step in [1, 3, 7, 64, 499] {
            let (mut rows, mut bytes) = (Vec::new(), 0);
            for start in (0..500).step_by(step) {
                bytes += rules.prefilter.rows(&column, start..500.min(start + step), &mut rows);
            }
            // At once, a value may be looked at for what only its neighbour completes; never the other way round.
            assert!(rows.iter().all(|row| at_once.contains(row)), "in steps of {step}");
            assert!((0..500).filter(|row| matches!(row % 7, 0 | 3 | 6)).all(|row| rows.contains(&row)));
            assert_eq!(bytes, column.bytes().len());
        }
    }
}
