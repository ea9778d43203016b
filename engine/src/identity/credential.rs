//! Finds the one credential of a request. It stands in a header, never in the query string, and there is
//! never more than one.

use base64::Engine as _;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use zeroize::Zeroizing;

/// A credential that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// There is none.
    Missing,
    /// It has a form that no client of ours sends.
    Malformed,
    /// Two were sent: which one counts would be a guess.
    Two,
    /// It stands in the query string, where logs and proxies keep it.
    InQuery,
}

/// Query parameters by which clients of other systems send a key or a password.
const PARAMETERS: [&str; 10] = [
    "token", "key", "api_key", "apikey", "api-key", "access_token", "u", "p", "password", "x-api-key",
];

/// Reads the credential of a request.
///
/// # Errors
/// [`Unusable`]; nothing of the credential is kept in it.
pub fn extract(headers: &HeaderMap, query: Option<&str>) -> Result<Zeroizing<String>, Unusable> {
    let mut authorization = headers.get_all(AUTHORIZATION).iter();
    let mut api_key = headers.get_all("x-api-key").iter();
    let (first, second) = (authorization.next(), authorization.next());
    let (key, another) = (api_key.next(), api_key.next());
    if second.is_some() || another.is_some() || (first.is_some() && key.is_some()) {
        return Err(Unusable::Two);
    }
    if query.is_some_and(holds_credential) {
        return Err(Unusable::InQuery);
    }
    match (first, key) {
        (Some(value), None) => from_authorization(value.to_str().map_err(|_| Unusable::Malformed)?),
        (None, Some(value)) => plain(value.to_str().map_err(|_| Unusable::Malformed)?),
        _ => Err(Unusable::Missing),
    }
}

fn from_authorization(value: &str) -> Result<Zeroizing<String>, Unusable> {
    let (scheme, credential) = value.trim().split_once(' ').ok_or(Unusable::Malformed)?;
    let credential = credential.trim_start();
    match scheme.to_ascii_lowercase().as_str() {
        "bearer" | "token" | "apikey" => plain(credential),
        "basic" => {
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(credential)
                .map(Zeroizing::new)
                .map_err(|_| Unusable::Malformed)?;
            let text = std::str::from_utf8(&bytes).map_err(|_| Unusable::Malformed)?;
            let (_user, password) = text.split_once(':').ok_or(Unusable::Malformed)?;
            plain(password)
        }
        _ => Err(Unusable::Malformed),
    }
}

fn plain(credential: &str) -> Result<Zeroizing<String>, Unusable> {
    if credential.is_empty() || !credential.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Unusable::Malformed);
    }
    Ok(Zeroizing::new(credential.to_owned()))
}

fn holds_credential(query: &str) -> bool {
    url::form_urlencoded::parse(query.as_bytes()).any(|(name, value)| {
        let name = name.to_ascii_lowercase();
        (PARAMETERS.contains(&name.as_str()) && !value.is_empty())
            || matches!(super::key::parse(&value), Some(super::key::Form::Ours { .. }))
    })
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::{Unusable, extract};

    fn check(headers: &[(&str, &str)], query: Option<&str>, expected: Result<&str, Unusable>) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(
                HeaderName::from_bytes(name.as_bytes()).expect("a name"),
                HeaderValue::from_str(value).expect("a value"),
            );
        }
        let got = extract(&map, query);
        assert_eq!(got.as_ref().map(|key| key.as_str()).map_err(|e| *e), expected, "{headers:?} {query:?}");
    }

    /// Every way a client may send its key.
    #[test]
    fn each_header_form_is_read() {
        for value in ["Bearer k", "bearer k", "BEARER  k", "Token k", "ApiKey k", "apikey k", "Basic dTpr"] {
            check(&[("authorization", value)], None, Ok("k"));
        }
        check(&[("x-api-key", "k")], None, Ok("k"));
        check(&[("x-api-key", "k")], Some("from=1&tokens=2&attr.key=3"), Ok("k"));
        // Everything past the first colon is the password.
        check(&[("authorization", "Basic OmE6Yg==")], None, Ok("a:b"));
    }

    /// RELIABILITY A2, A8, A9.
    #[test]
    fn what_is_no_single_credential_in_a_header_is_refused() {
        check(&[], None, Err(Unusable::Missing));
        for value in [
            "Bearer", "Bearer ", "Bearer a b", "Digest x", "k", "Basic ", "Basic !!!", "Basic dQ==", "Basic dTo=",
            "Bearer\tk", "",
        ] {
            check(&[("authorization", value)], None, Err(Unusable::Malformed));
        }
        check(&[("x-api-key", "")], None, Err(Unusable::Malformed));
        check(&[("x-api-key", "a b")], None, Err(Unusable::Malformed));
        check(&[("authorization", "Bearer a"), ("authorization", "Bearer a")], None, Err(Unusable::Two));
        check(&[("authorization", "Bearer a"), ("x-api-key", "a")], None, Err(Unusable::Two));
        check(&[("x-api-key", "a"), ("x-api-key", "b")], None, Err(Unusable::Two));
        for query in ["token=x", "db=a&u=me&p=secret", "API_KEY=x", "access%5Ftoken=x", "a=1&key=x"] {
            check(&[], Some(query), Err(Unusable::InQuery));
            check(&[("x-api-key", "k")], Some(query), Err(Unusable::InQuery));
        }
    }
}
