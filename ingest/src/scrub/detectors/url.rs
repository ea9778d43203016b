//! Credentials in front of a host: `scheme://user:password@host` and `scheme://token@host`.

use memchr::memmem;

use super::{Input, Span, is_placeholder, push};
use crate::cut;

/// A user name alone counts as a token from this length on, if it holds a digit.
const TOKEN_BYTES_MIN: usize = 20;

pub(super) fn find(input: Input<'_>, out: &mut Vec<Span>) {
    let bytes = input.text.as_bytes();
    for at in memmem::find_iter(bytes, b"://") {
        let start = at + 3;
        let ends =
            |b: u8| b.is_ascii_whitespace() || matches!(b, b'/' | b'"' | b'\'' | b'<' | b'>' | b'`' | b'\\');
        let rest = cut::tail(bytes, start);
        let len = rest.iter().position(|b| ends(*b)).unwrap_or(rest.len());
        // The last @ counts: an unescaped one may stand in the password.
        let Some((credential, _)) = cut::text(input.text, start, start + len).rsplit_once('@') else {
            continue;
        };
        let host = credential.len();
        let (user, password) = match credential.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (credential, None),
        };
        match password {
            Some(password) if is_port_and_query(password) || is_placeholder(password) => {}
            Some(_) => push(out, start + user.len() + 1, start + host, "[password]"),
            None if is_token(user) => push(out, start, start + host, "[key]"),
            None => {}
        }
    }
}

fn is_token(user: &str) -> bool {
    user.len() >= TOKEN_BYTES_MIN
        && user.bytes().any(|b| b.is_ascii_digit())
        && !user.contains(['?', '&', '='])
}

/// `8080?user=a@b`: the colon was before a port and the @ is in the query.
fn is_port_and_query(password: &str) -> bool {
    let digits = password.bytes().take_while(u8::is_ascii_digit).count();
    digits > 0 && matches!(password.as_bytes().get(digits), Some(b'?' | b'&'))
}
