//! The query string of each route: few parameters, and what they name never chooses a tenant (T1).

use storage::record::{Dataset, Kind};

use crate::Route;
use crate::decode::Precision;
use crate::reply::Refusal;

/// What a route's query says.
#[derive(Debug, Default)]
pub(super) struct Parameters {
    pub dataset: Option<Dataset>,
    pub is_atomic: bool,
    pub precision: Precision,
}

/// Parameters of a query at most; no client of these routes sends more than ten.
const PARAMETERS_MAX: usize = 64;

/// Reads the parameters that the route knows; others are ignored, as its clients expect.
pub(super) fn parse(route: Route, query: &str) -> Result<Parameters, Refusal> {
    let mut parameters = Parameters {
        precision: if route == Route::WriteV3 { Precision::Auto } else { Precision::Nanosecond },
        ..Parameters::default()
    };
    let mut seen: Vec<String> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decode(name)?, decode(value)?);
        if seen.contains(&name) || seen.len() == PARAMETERS_MAX {
            return Err(bad("a parameter is given twice, or there are more than 64"));
        }
        match (route, name.as_str()) {
            (Route::Events, "dataset") => parameters.dataset = Some(dataset(&value)?),
            (Route::Events | Route::Audit, "atomic") => {
                parameters.is_atomic = boolean(&value).ok_or_else(|| bad("atomic is true or false"))?;
            }
            (Route::WriteV1 | Route::WriteV2 | Route::WriteV3, "precision") if !value.is_empty() => {
                parameters.precision = precision(route, &value)?;
            }
            (Route::WriteV3, "accept_partial") => {
                let accepts = boolean(&value).ok_or_else(|| bad("accept_partial is true or false"))?;
                parameters.is_atomic = !accepts;
            }
            (Route::WriteV1 | Route::WriteV2 | Route::WriteV3, "db" | "bucket" | "org" | "orgID" | "rp")
                if value.contains("..") || value.chars().any(char::is_control) =>
            {
                return Err(bad("db, bucket and org hold neither .. nor control characters"));
            }
            _ => {}
        }
        seen.push(name);
    }
    Ok(parameters)
}

fn bad(detail: &str) -> Refusal {
    Refusal::new(400, "bad_parameter", detail)
}

fn boolean(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

fn dataset(name: &str) -> Result<Dataset, Refusal> {
    let dataset = Dataset::parse(name).map_err(|error| Refusal::new(400, "bad_dataset", error.context()))?;
    // Only events go to a dataset by name; `metrics` is built in before there is a kind for it.
    let is_of_other_kind = Kind::parse(name).is_some_and(|kind| kind != Kind::Events) || name == "metrics";
    if is_of_other_kind {
        return Err(Refusal::new(400, "dataset_kind", "the dataset holds another kind than events"));
    }
    Ok(dataset)
}

fn precision(route: Route, name: &str) -> Result<Precision, Refusal> {
    use Precision::{Auto, Hour, Microsecond, Millisecond, Minute, Nanosecond, Second};
    let found = match (route, name) {
        (Route::WriteV3, "auto") => Some(Auto),
        (_, "ns") | (Route::WriteV1, "n") | (Route::WriteV3, "n" | "nanosecond") => Some(Nanosecond),
        (_, "us") | (Route::WriteV1, "u" | "\u{b5}" | "\u{3bc}") | (Route::WriteV3, "u" | "microsecond") => {
            Some(Microsecond)
        }
        (_, "ms") | (Route::WriteV3, "millisecond") => Some(Millisecond),
        (_, "s") | (Route::WriteV3, "second") => Some(Second),
        (Route::WriteV1, "m") => Some(Minute),
        (Route::WriteV1, "h") => Some(Hour),
        _ => None,
    };
    found.ok_or_else(|| {
        bad(match route {
            Route::WriteV1 => "precision is one of n, ns, u, us, ms, s, m, h",
            Route::WriteV2 => "precision is one of ns, us, ms, s",
            _ => {
                "precision is one of auto, nanosecond, microsecond, millisecond, second, ns, us, ms, s, n, u"
            }
        })
    })
}

/// Percent-decoding as HTML forms write it: `+` is a space.
fn decode(text: &str) -> Result<String, Refusal> {
    let malformed = || bad("the query is not percent-encoded UTF-8");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        bytes.push(match first {
            b'+' => b' ',
            b'%' => {
                let [high, low, tail @ ..] = rest else { return Err(malformed()) };
                rest = tail;
                let digit = |byte: u8| char::from(byte).to_digit(16).ok_or_else(malformed);
                u8::try_from(digit(*high)? << 4 | digit(*low)?).expect("two hex digits")
            }
            other => *other,
        });
    }
    String::from_utf8(bytes).map_err(|_| malformed())
}
