//! The query string: decoded once, every name known or refused.

use percent_encoding::percent_decode_str;

use crate::cursor::Cursor;
use crate::refusal::Refusal;

/// Decoded parameters; each is taken by the endpoint that knows it, what is left over is refused.
#[derive(Debug)]
pub struct Params {
    pairs: Vec<(String, String)>,
}

/// Parameters of one request at most.
const PARAMETERS_MAX: usize = 64;

impl Params {
    /// Decodes a query string.
    ///
    /// # Errors
    /// 400 when it is not UTF-8, has too many parameters or one of them twice.
    pub fn parse(query: Option<&str>) -> Result<Self, Refusal> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            if pairs.iter().any(|(known, _)| *known == name) {
                return Err(Refusal::parameter(&name, "is given twice"));
            }
            if pairs.len() >= PARAMETERS_MAX {
                return Err(Refusal::new(
                    400,
                    "invalid_parameter",
                    format!("more than {PARAMETERS_MAX} parameters are given"),
                ));
            }
            pairs.push((name, value));
        }
        Ok(Self { pairs })
    }

    /// Takes the parameter of that name.
    pub fn take(&mut self, name: &str) -> Option<String> {
        let at = self.pairs.iter().position(|(known, _)| known == name)?;
        Some(self.pairs.swap_remove(at).1)
    }

    /// Takes the parameters whose names begin with `prefix`, which may not be all of the name.
    pub fn take_prefixed(&mut self, prefix: &str) -> Vec<(String, String)> {
        let mut taken = Vec::new();
        self.pairs.retain(|(name, value)| match name.strip_prefix(prefix) {
            Some(rest) if !rest.is_empty() => {
                taken.push((rest.to_owned(), value.clone()));
                false
            }
            _ => true,
        });
        taken
    }

    /// Takes a point in time.
    ///
    /// # Errors
    /// 400 when it is none.
    pub fn take_time(&mut self, name: &str) -> Result<Option<i64>, Refusal> {
        self.take(name)
            .map(|text| {
                crate::time::parse(&text).ok_or_else(|| {
                    Refusal::parameter(name, "is neither RFC 3339 nor an integer in s, ms, µs or ns")
                })
            })
            .transpose()
    }

    /// Takes `from` and `to`.
    ///
    /// # Errors
    /// 400 when one is no time or `from` is after `to`.
    pub fn take_range(&mut self) -> Result<(Option<i64>, Option<i64>), Refusal> {
        let (from, to) = (self.take_time("from")?, self.take_time("to")?);
        match (from, to) {
            (Some(from), Some(to)) if from > to => Err(Refusal::parameter("from", "is after to")),
            range => Ok(range),
        }
    }

    /// Takes `limit`: 1 to 10,000, default 100.
    ///
    /// # Errors
    /// 400 when it is anything else.
    pub fn take_limit(&mut self) -> Result<usize, Refusal> {
        self.take_limit_or(100)
    }

    /// Takes `limit`: 1 to 10,000, with this default.
    ///
    /// # Errors
    /// 400 when it is anything else.
    pub fn take_limit_or(&mut self, default: usize) -> Result<usize, Refusal> {
        match self.take("limit") {
            None => Ok(default),
            Some(text) => match text.parse() {
                Ok(limit @ 1..=10_000) => Ok(limit),
                _ => Err(Refusal::parameter("limit", "is not a number from 1 to 10000")),
            },
        }
    }

    /// Takes `cursor`.
    ///
    /// # Errors
    /// 400 when it is none that a list gave.
    pub fn take_cursor(&mut self) -> Result<Option<Cursor>, Refusal> {
        let none_of_ours = || Refusal::parameter("cursor", "is none of ours");
        self.take("cursor").map(|text| Cursor::decode(&text).ok_or_else(none_of_ours)).transpose()
    }

    /// Refuses what nobody took.
    ///
    /// # Errors
    /// 400 naming the first unknown parameter.
    pub fn finish(self) -> Result<(), Refusal> {
        match self.pairs.first() {
            None => Ok(()),
            Some((name, _)) => Err(Refusal::parameter(name, "is not known here")),
        }
    }
}

fn decode(text: &str) -> Result<String, Refusal> {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| Refusal::new(400, "invalid_parameter", "the query string is not UTF-8"))
}
