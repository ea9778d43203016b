//! Which names hold secrets: the built-in list and what configuration adds.
//!
//! A name is compared whole and by its last dotted part, in lower case and without `-`, `_` and blanks, so
//! `http.request.header.Set-Cookie`, `setCookie` and `set_cookie` are one. Endings count for the names that
//! cannot end an innocent one (`db_password`, `stripeSecretKey`).

use std::collections::HashMap;

use crate::cut;

/// What is done with the value of a named field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// The value is removed.
    Drop,
    /// The value becomes a fixed text.
    Mask,
    /// The value becomes its keyed hash, the same in every field: records can still be joined by it.
    Hash,
    /// The value becomes a short token, the same for the same value of the same field only.
    Tokenise,
    /// The value stays, whatever the built-in list says; detectors still look at it.
    Keep,
}

/// What is known of a name that has a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) action: Action,
    /// What a masked value becomes.
    pub(super) label: &'static str,
    /// Whether its value goes to the line's end (`Cookie: a=1; b=2`).
    pub(super) is_header: bool,
}

/// Names whose values are secret, as a whole name or as its last dotted part.
const EXACT: &[(&str, &str)] = &[
    ("pwd", "[password]"),
    ("pass", "[password]"),
    ("pin", "[password]"),
    ("token", "[secret]"),
    ("jwt", "[secret]"),
    ("credential", "[secret]"),
    ("credentials", "[secret]"),
    ("ssn", "[ssn]"),
    ("cvv", "[card]"),
    ("cvv2", "[card]"),
    ("cvc", "[card]"),
    ("pan", "[card]"),
    ("phone", "[phone]"),
    ("xapitoken", "[secret]"),
    ("sharedkey", "[secret]"),
    ("authkey", "[secret]"),
    ("idtoken", "[secret]"),
    ("hftoken", "[secret]"),
    ("herokukey", "[secret]"),
    ("hubspotkey", "[secret]"),
    ("snyktoken", "[secret]"),
    ("snykkey", "[secret]"),
    ("userauth", "[secret]"),
];

/// Names whose values are secret wherever they end a name.
const ENDINGS: &[(&str, &str)] = &[
    ("password", "[password]"),
    ("passwd", "[password]"),
    ("passwort", "[password]"),
    ("passphrase", "[password]"),
    ("userpwd", "[password]"),
    ("dbpwd", "[password]"),
    ("secret", "[secret]"),
    ("secretkey", "[secret]"),
    ("secrettoken", "[secret]"),
    ("secretaccesskey", "[secret]"),
    ("secretid", "[secret]"),
    ("apikey", "[secret]"),
    ("apitoken", "[secret]"),
    ("apisecret", "[secret]"),
    ("accesstoken", "[secret]"),
    ("accesskey", "[secret]"),
    ("accountkey", "[secret]"),
    ("sharedaccesskey", "[secret]"),
    ("sharedaccesssignature", "[secret]"),
    ("refreshtoken", "[secret]"),
    ("authtoken", "[secret]"),
    ("oauthtoken", "[secret]"),
    ("bearertoken", "[secret]"),
    ("sessiontoken", "[secret]"),
    ("securitytoken", "[secret]"),
    ("bottoken", "[secret]"),
    ("usertoken", "[secret]"),
    ("serviceaccounttoken", "[secret]"),
    ("authorization", "[secret]"),
    ("cookie", "[secret]"),
    ("privatekey", "[private_key]"),
    ("encryptionkey", "[secret]"),
    ("signingkey", "[secret]"),
    ("masterkey", "[secret]"),
    ("clientkeydata", "[secret]"),
    ("connectionstring", "[secret]"),
    ("cardnumber", "[card]"),
    ("creditcard", "[card]"),
    ("cardcvv", "[card]"),
    ("cardcvc", "[card]"),
    ("socialsecuritynumber", "[ssn]"),
    ("phonenumber", "[phone]"),
    ("msisdn", "[phone]"),
    ("sumologicaccessid", "[secret]"),
    ("sumoaccessid", "[secret]"),
    ("contribsyscom", "[secret]"),
];

/// The names that have a rule.
#[derive(Clone, Debug)]
pub(super) struct Fields {
    configured: HashMap<String, Action>,
    has_built_in: bool,
}

impl Fields {
    /// These names, and behind them the built-in ones.
    pub(super) fn with(configured: impl IntoIterator<Item = (String, Action)>, has_built_in: bool) -> Self {
        let configured = configured.into_iter().map(|(name, action)| (normalise(&name), action)).collect();
        Self { configured, has_built_in }
    }

    /// The rule for the value under `name`, if there is one.
    pub(super) fn verdict(&self, name: &str) -> Option<Verdict> {
        let last = name.rsplit(['.', '/', ':']).next().unwrap_or(name);
        let mut buffer = [0u8; 128];
        let last = squeeze(last, &mut buffer)?;
        if !self.configured.is_empty() {
            let whole = normalise(name);
            if let Some(action) = self.configured.get(&whole).or_else(|| self.configured.get(last)) {
                let label = built_in(last).map_or("[masked]", |(_, label)| label);
                return Some(Verdict { action: *action, label, is_header: is_header(last) });
            }
        }
        let built_in = self.has_built_in.then(|| built_in(last)).flatten();
        built_in.map(|(_, label)| Verdict { action: Action::Mask, label, is_header: is_header(last) })
    }

    /// Every name that has a rule, as it is compared: the prefilter looks for these.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let built_in = EXACT.iter().chain(ENDINGS).map(|(name, _)| *name).filter(|_| self.has_built_in);
        built_in.chain(self.configured.keys().map(String::as_str))
    }
}

fn is_header(name: &str) -> bool {
    name.ends_with("authorization") || name.ends_with("cookie")
}

fn built_in(name: &str) -> Option<(&'static str, &'static str)> {
    let exact = EXACT.iter().find(|(known, _)| *known == name);
    exact.or_else(|| ENDINGS.iter().find(|(known, _)| name.ends_with(known))).copied()
}

/// A name as it is compared, its dots kept out too.
pub(super) fn normalise(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '-' | '_' | ' ' | '.')).flat_map(char::to_lowercase).collect()
}

/// The last part in lower case without separators. Of a very long one the end counts; a name in other
/// letters than ASCII has no built-in rule.
fn squeeze<'a>(part: &str, buffer: &'a mut [u8; 128]) -> Option<&'a str> {
    let mut at = buffer.len();
    let bytes = part.bytes().rev().filter(|byte| !matches!(byte, b'-' | b'_' | b' '));
    for (slot, byte) in buffer.iter_mut().rev().zip(bytes) {
        *slot = byte.to_ascii_lowercase();
        at -= 1;
    }
    // The cut may have gone through a character.
    while buffer.get(at).is_some_and(|byte| byte & 0xC0 == 0x80) {
        at += 1;
    }
    // A plural hides nothing (`cookies`, `passwords`), but `credentials` is its own word.
    std::str::from_utf8(cut::tail(buffer, at)).ok().map(|name| match name {
        "cookies" | "passwords" | "secrets" | "apikeys" => name.strip_suffix('s').unwrap_or(name),
        _ => name,
    })
}

#[cfg(test)]
mod tests {
    use super::{Action, Fields};

    #[test]
    fn names_are_compared_without_their_dress() {
        let fields = Fields::with([("customer_no".to_owned(), Action::Hash)], true);
        for (name, is_ruled) in [
            ("password", true),
            ("user.password", true),
            ("DB_PASSWORD", true),
            ("dbPassword", true),
            ("http.request.header.set-cookie", true),
            ("Proxy-Authorization", true),
            ("x-api-key", true),
            ("aws_secret_access_key", true),
            ("token", true),
            ("auth.token", true),
            ("Customer-No", true),
            ("order.customerNo", true),
            ("token_count", false),
            ("max_tokens", false),
            ("next_token", false),
            ("cancellationToken", false),
            ("password_reset_required", false),
            ("kubernetes.secret.name", false),
            ("author", false),
            ("key", false),
            ("", false),
        ] {
            assert_eq!(fields.verdict(name).is_some(), is_ruled, "{name}");
        }
    }
}
