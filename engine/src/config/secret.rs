//! Secrets of the configuration: where they come from, and which are no secrets at all.
//!
//! A secret is a [`SecretString`], which neither prints nor serialises. A file holds a reference to it, never
//! the secret itself; the environment may hold either.

use secrecy::{ExposeSecret as _, SecretString};

use super::Error;

/// Shortest secret, in characters.
pub const SECRET_CHARS_MIN: usize = 32;

/// Beginnings by which people mark what they meant to replace.
const PLACEHOLDERS: [&str; 8] =
    ["change-me", "changeme", "change_me", "replace-me", "placeholder", "your-", "example", "todo"];

/// The secrets that a start may need.
#[derive(Clone, Default)]
pub struct Secrets {
    /// What the first start makes the first key of.
    pub bootstrap_key: Option<SecretString>,
    /// Base64 of 32 bytes; the pepper of stored keys is derived from it.
    pub master_key: Option<SecretString>,
    /// A key that is operator of the system while it is configured.
    pub operator_key: Option<SecretString>,
}

/// The names of all secrets, as keys of the configuration.
pub const NAMES: [&str; 3] = ["bootstrap_key", "master_key", "operator_key"];

impl Secrets {
    pub(super) fn slot(&mut self, name: &str) -> Option<&mut Option<SecretString>> {
        match name {
            "bootstrap_key" => Some(&mut self.bootstrap_key),
            "master_key" => Some(&mut self.master_key),
            "operator_key" => Some(&mut self.operator_key),
            _ => None,
        }
    }

    /// The secrets by name, and whether each is set; never what it is.
    #[must_use]
    pub fn are_set(&self) -> [(&'static str, bool); 3] {
        [
            ("bootstrap_key", self.bootstrap_key.is_some()),
            ("master_key", self.master_key.is_some()),
            ("operator_key", self.operator_key.is_some()),
        ]
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        for (name, secret) in
            [("bootstrap_key", &self.bootstrap_key), ("operator_key", &self.operator_key)]
        {
            if let Some(secret) = secret {
                check_key(name, secret.expose_secret())?;
            }
        }
        if let Some(secret) = &self.master_key {
            master_key_bytes(secret.expose_secret())?;
        }
        Ok(())
    }
}

/// Resolves what a configuration says of a secret: `env:NAME`, `file:PATH`, or, `from_environment` only, the
/// secret itself.
pub(super) fn resolve(
    name: &str,
    text: &str,
    from_environment: bool,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<SecretString, Error> {
    if let Some(path) = text.strip_prefix("file:") {
        let read = std::fs::read_to_string(path)
            .map_err(|error| Error::new(format!("{name}: cannot read the file it names: {error}")))?;
        return Ok(SecretString::from(read.trim_end_matches(['\n', '\r']).to_owned()));
    }
    if let Some(variable) = text.strip_prefix("env:") {
        return environment(variable)
            .map(SecretString::from)
            .ok_or_else(|| Error::new(format!("{name}: the environment variable it names is not set")));
    }
    if from_environment {
        return Ok(SecretString::from(text.to_owned()));
    }
    Err(Error::new(format!(
        "{name} in a file must be a reference, env:NAME or file:PATH, not the secret itself"
    )))
}

/// Refuses what is no key: placeholders, short ones, and ones that no header can carry.
fn check_key(name: &str, key: &str) -> Result<(), Error> {
    if is_placeholder(key) {
        return Err(Error::new(format!("{name} is a placeholder: give it a random value")));
    }
    if key.chars().count() < SECRET_CHARS_MIN {
        return Err(Error::new(format!("{name} must have at least {SECRET_CHARS_MIN} characters")));
    }
    if !key.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Error::new(format!("{name} must be visible ASCII without spaces")));
    }
    Ok(())
}

fn is_placeholder(key: &str) -> bool {
    let lower = key.to_ascii_lowercase();
    let mut chars = key.chars();
    let is_one_char = chars.next().is_none_or(|first| chars.all(|c| c == first));
    is_one_char || PLACEHOLDERS.iter().any(|start| lower.starts_with(start))
}

/// Reads a master key: base64 of 32 bytes that are not all alike.
///
/// # Errors
/// Says what is wrong with it, never what it is.
pub fn master_key_bytes(text: &str) -> Result<[u8; 32], Error> {
    use base64::Engine as _;
    let wrong = || Error::new("master_key must be base64 of 32 random bytes");
    if is_placeholder(text) {
        return Err(Error::new("master_key is a placeholder: use 32 random bytes in base64"));
    }
    let standard = base64::engine::general_purpose::STANDARD;
    let bytes: [u8; 32] =
        standard.decode(text.trim()).map_err(|_| wrong())?.try_into().map_err(|_| wrong())?;
    if bytes.iter().all(|b| *b == bytes[0]) {
        return Err(Error::new("master_key is one byte repeated: use 32 random bytes"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::{check_key, master_key_bytes};

    #[test]
    fn placeholders_are_no_keys() {
        let check = |key: &str, is_good: bool| assert_eq!(check_key("k", key).is_ok(), is_good, "{key}");
        check("", false);
        check("short-but-random-8s7df", false);
        check("change-me-change-me-change-me-change-me", false);
        check("CHANGEME-0123456789-0123456789-0123456789", false);
        check(&"a".repeat(64), false);
        check("with spaces 0123456789 0123456789 0123456789", false);
        check("0b7hJq2xVw9sT4kLm8nR1cYz5dFg3aEu", true);
    }

    #[test]
    fn a_master_key_is_32_different_bytes() {
        let check = |key: &str, is_good: bool| assert_eq!(master_key_bytes(key).is_ok(), is_good, "{key}");
        check("", false);
        check("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", false);
        check("AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHw==", false);
        check("AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=", true);
        check("not base64 at all, but long enough to be one", false);
    }
}
