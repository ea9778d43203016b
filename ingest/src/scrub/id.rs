//! Ids of requests and rows: what a sender made up, and everybody writes down.
//!
//! An id is kept as it is or replaced whole: a part of it masked would make many ids one.

use super::rules::Rules;
use super::value;
use crate::cut;

/// What an id may be used as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Id {
    /// As it is.
    Kept,
    /// It holds something personal: this stands for it, the same every time.
    Token(String),
    /// It is or looks like a secret: nothing of it may be used.
    Secret,
}

/// The shortest id that is taken for a key of a form that is nobody's, in bytes: as the shortest configured key.
const OPAQUE_BYTES_MIN: usize = 32;

/// Kinds of keys of ours; an id that holds the beginning of one is one, whole or cut off.
const OURS: [&str; 5] = ["fm_ing_", "fm_ana_", "fm_aud_", "fm_adm_", "fm_opr_"];

/// Tells what an id may be used as. A UUID, a trace id or a short name costs one pass.
pub(crate) fn check(rules: &Rules, id: &str) -> Id {
    if is_key_like(id.as_bytes()) {
        return Id::Secret;
    }
    if !rules.prefilter.is_hit(id.as_bytes()) {
        return Id::Kept;
    }
    let spans = value::find(rules, id);
    let is_personal =
        |label: &str| matches!(label, "[email]" | "[card]" | "[iban]" | "[ssn]" | "[phone]" | "[ip]");
    match spans.as_slice() {
        [] => Id::Kept,
        spans if spans.iter().all(|span| is_personal(span.label)) => {
            rules.token("correlation_id", id.as_bytes()).map_or(Id::Secret, Id::Token)
        }
        _ => Id::Secret,
    }
}

/// Whether an id has the form of a key: one of ours, or a long run of small and capital letters and digits, as a
/// generated key is and no usual id. Ids in hex, with or without dashes, are none.
pub(crate) fn is_key_like(id: &[u8]) -> bool {
    let begins_ours = memchr::memmem::find(id, b"fm_")
        .is_some_and(|at| OURS.iter().any(|ours| cut::tail(id, at).starts_with(ours.as_bytes())));
    begins_ours
        || id.len() >= OPAQUE_BYTES_MIN
            && id.split(|b| !b.is_ascii_alphanumeric()).any(|run| {
                run.len() >= OPAQUE_BYTES_MIN
                    && run.iter().any(u8::is_ascii_lowercase)
                    && run.iter().any(u8::is_ascii_uppercase)
                    && run.iter().any(u8::is_ascii_digit)
            })
}

#[cfg(test)]
mod tests {
    use super::{Id, check};
    use crate::scrub::{Rules, RulesConfig};

    #[test]
    fn ids_that_hold_secrets_are_not_used() {
        let rules = Rules::compile(&RulesConfig::default(), Some(&[7; 32])).expect("compiles");
        for id in [
            "fm_adm_0123456789_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQ123456",
            "fm_adm_01234",
            "x-fm_ing_0123456789",
            "0b7hJq2xVw9sT4kLm8nR1cYz5dFg3aEu",
            "req-0b7hJq2xVw9sT4kLm8nR1cYz5dFg3aEu",
            "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",
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
            "AKIAQYLPMN5HHHFPZAM2",
            "password:hunter2",
        ] {
            assert_eq!(check(&rules, id), Id::Secret, "{id}");
        }
        for id in [
            "4111111111111111",
            "order-4111-1111-1111-1111",
            "714-67-1330",
            "DE89370400440532013000",
            "amFuZS5kb2VAZXhhbXBsZS5jb20",
        ] {
            let Id::Token(token) = check(&rules, id) else { panic!("{id} is no token") };
            assert!(token.starts_with("tok_") && !token.contains(id), "{token}");
            assert_eq!(check(&rules, id), Id::Token(token), "the same every time");
            assert_eq!(check(&Rules::default_on(), id), Id::Secret, "without a key there is no token");
        }
        for id in [
            "550e8400-e29b-41d4-a716-446655440000",
            "550E8400-E29B-41D4-A716-446655440000",
            "12345678901234567890123456789012",
            "b7b23384c7b0cf94becb3414b3b0d651",
            "1d8d138b7d9e32ed6a41c22313362cfde14c332051833b00d73bb35209e463ff",
            "01JDX3K4V8ZQ3N5T7W9Y2B4D6F",
            "1-67891233-abcdef012345678912345678",
            "order-4711",
            "checkout.4711:retry-2",
            "send-1f0c9a7b2d3e4f5061728394a5b6c7d8-12",
            "tok_0123456789abcdef",
        ] {
            assert_eq!(check(&rules, id), Id::Kept, "{id}");
        }
    }
}
