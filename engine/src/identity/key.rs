//! API keys: `fm_<kind>_<id>_<secret><crc>`.
//!
//! The checksum is there to refuse typos and a scanner's false finds before anything is looked up; the 256 bits
//! of secret are what protects, so no slow hash is needed.

use storage::{Role, Roles};
use zeroize::Zeroizing;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const ID_CHARS: usize = 10;
/// 43 of 62 characters are 256 bits.
const SECRET_CHARS: usize = 43;
const CRC_CHARS: usize = 6;

/// The longest credential that is looked at, in bytes.
pub const CREDENTIAL_BYTES_MAX: usize = 8 << 10;

/// The shortest key of a form that is not ours (a bootstrap or configured key), in bytes.
pub const OPAQUE_BYTES_MIN: usize = 32;

/// A key that was just made. Its text is shown once.
pub struct NewKey {
    /// Public, for lists and logs.
    pub id: String,
    /// The whole key.
    pub text: Zeroizing<String>,
}

/// What a credential's text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form<'a> {
    /// One of our keys, checksum verified: look up this id.
    Ours {
        /// The public id.
        id: &'a str,
    },
    /// Any other text that is long enough: look up its hash.
    Opaque,
}

/// Makes a key whose kind tells its strongest role.
///
/// # Errors
/// When the system gives no random bytes.
pub fn generate(roles: Roles) -> Result<NewKey, getrandom::Error> {
    let id = random_text(ID_CHARS)?;
    let secret = random_text(SECRET_CHARS)?;
    let mut text = Zeroizing::new(format!("fm_{}_{}_{}", kind(roles), *id, *secret));
    let crc = base62(checksum(&text));
    text.push_str(&crc);
    Ok(NewKey { id: id.to_string(), text })
}

/// Makes a public id alone, for a key whose text was given to us.
///
/// # Errors
/// When the system gives no random bytes.
pub fn generate_id() -> Result<String, getrandom::Error> {
    random_text(ID_CHARS).map(|id| id.to_string())
}

/// Tells what a credential's text is; `None` where it can be no key at all.
#[must_use]
pub fn parse(text: &str) -> Option<Form<'_>> {
    if text.len() > CREDENTIAL_BYTES_MAX || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return None;
    }
    let Some(rest) = text.strip_prefix("fm_") else {
        return (text.len() >= OPAQUE_BYTES_MIN).then_some(Form::Opaque);
    };
    let (kind, rest) = rest.split_once('_')?;
    let (id, tail) = rest.split_once('_')?;
    let is_form = matches!(kind, "ing" | "ana" | "aud" | "adm" | "opr")
        && id.len() == ID_CHARS
        && tail.len() == SECRET_CHARS + CRC_CHARS
        && id.bytes().chain(tail.bytes()).all(|b| b.is_ascii_alphanumeric());
    if !is_form {
        return None;
    }
    let (body, crc) = text.split_at(text.len() - CRC_CHARS);
    (base62(checksum(body)) == crc).then_some(Form::Ours { id })
}

fn kind(roles: Roles) -> &'static str {
    match () {
        () if roles.has(Role::Admin) => "adm",
        () if roles.has(Role::Operator) => "opr",
        () if roles.has(Role::Auditor) => "aud",
        () if roles.has(Role::Analyst) => "ana",
        () => "ing",
    }
}

fn checksum(text: &str) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(text.as_bytes());
    crc.sum()
}

fn base62(mut value: u32) -> String {
    let mut out = [b'0'; CRC_CHARS];
    for slot in out.iter_mut().rev() {
        *slot = ALPHABET[(value % 62) as usize];
        value /= 62;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Random characters of the alphabet, each equally likely: bytes past the last whole multiple of 62 are thrown
/// away.
fn random_text(chars: usize) -> Result<Zeroizing<String>, getrandom::Error> {
    let mut text = Zeroizing::new(String::with_capacity(chars));
    let mut bytes = Zeroizing::new([0_u8; 64]);
    while text.len() < chars {
        getrandom::fill(&mut *bytes)?;
        for byte in bytes.iter().filter(|byte| **byte < 248).take(chars - text.len()) {
            text.push(char::from(ALPHABET[usize::from(*byte) % 62]));
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use storage::{Role, Roles};

    use super::{Form, generate, parse};

    #[test]
    fn a_made_key_parses_and_tells_its_id() {
        let key = generate(Roles::of(&[Role::Ingest])).expect("random bytes");
        assert!(key.text.starts_with("fm_ing_"), "{}", &key.text[..7]);
        assert_eq!(key.text.len(), 3 + 4 + 11 + 49);
        assert_eq!(parse(&key.text), Some(Form::Ours { id: &key.id }));
    }

    /// A3: any one wrong character is refused by the checksum alone.
    #[test]
    fn a_wrong_character_is_no_key() {
        let key = generate(Roles::of(&[Role::Admin, Role::Operator])).expect("random bytes");
        for at in 7..key.text.len() {
            let mut bytes = key.text.as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'x' { b'y' } else { b'x' };
            assert_eq!(parse(std::str::from_utf8(&bytes).expect("ASCII")), None, "at {at}");
        }
        for text in ["fm_", "fm_ing", "fm_ing_", "fm_xxx_0123456789_", &key.text[..60], "short", "", "a b"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse("any-other-form-of-32-characters-or-more"), Some(Form::Opaque));
    }
}
