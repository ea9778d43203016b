//! Why a read is refused, and which status and code say so. The engine renders it as a problem.

use std::fmt;

use arrow::error::ArrowError;
use datafusion::common::DataFusionError;
use object_store::Error as StoreError;
use storage::reader::Damaged;

use crate::plan::guard::Refused;
use crate::worker::wire;

/// A refused request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// Stable code.
    pub code: &'static str,
    /// One sentence without a full stop; quotes no stored data.
    pub detail: String,
}

/// The longest detail taken from a planner's message.
const DETAIL_BYTES_MAX: usize = 300;

impl Refusal {
    /// Makes a refusal.
    pub fn new(status: u16, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into() }
    }

    /// 400 naming a parameter of the query string.
    pub fn parameter(name: &str, problem: impl fmt::Display) -> Self {
        Self::new(400, "invalid_parameter", format!("parameter {}: {problem}", shortened(name, 64)))
    }

    /// 404 for a table that is not there or not the caller's.
    pub fn table_not_found() -> Self {
        Self::new(404, "table_not_found", "there is no such table")
    }

    /// 422 for a query that would pass a bound on memory or rows.
    pub fn query_limit(detail: impl Into<String>) -> Self {
        Self::new(422, "query_limit", detail)
    }

    /// 422 for a query that would pass its bound on memory.
    pub fn memory() -> Self {
        Self::query_limit("the query needs more memory than one query may have")
    }

    /// 400 for a value in a row that does not suit what is done with it. The engine's own text would quote the value.
    pub fn value() -> Self {
        Self::new(400, "invalid_query", "a function failed on a value")
    }

    /// 422 for a query past its time.
    pub fn query_timeout(seconds: f64) -> Self {
        Self::new(422, "query_timeout", format!("the query took longer than {seconds} s"))
    }

    /// 500 naming a stored object whose bytes are not what was written.
    pub fn corrupt_object(path: &str) -> Self {
        Self::new(500, "corrupt_object", format!("object {path} cannot be decoded"))
    }

    /// 503 for a bucket that is away.
    pub fn storage_unavailable() -> Self {
        Self::new(503, "storage_unavailable", "the object store does not answer")
    }

    /// 500 for a mistake of ours.
    pub fn bug() -> Self {
        Self::new(500, "internal", "the query failed for a reason that is not the caller's")
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        let detail = refused.to_string();
        match refused {
            Refused::TooLong { .. } => Self::new(413, "query_too_long", detail),
            Refused::TooComplex { .. } => Self::new(400, "query_too_complex", detail),
            Refused::Syntax(_) => Self::new(400, "invalid_query", detail),
            Refused::NotOneQuery(_) | Refused::NotATable(_) | Refused::Function(_) | Refused::Type => {
                Self::new(400, "query_not_allowed", detail)
            }
            Refused::Qualified => Self::table_not_found(),
        }
    }
}

/// Every code that a worker may send; another is its bug.
const CODES: [&str; 13] = [
    "busy",
    "corrupt_object",
    "internal",
    "invalid_query",
    "query_failed",
    "query_limit",
    "query_not_allowed",
    "query_timeout",
    "query_too_complex",
    "query_too_long",
    "storage_unavailable",
    "table_not_found",
    "worker_failed",
];

impl From<&Refusal> for wire::Refused {
    fn from(refusal: &Refusal) -> Self {
        Self { status: refusal.status, code: refusal.code.to_owned(), detail: refusal.detail.clone() }
    }
}

impl From<wire::Refused> for Refusal {
    fn from(refused: wire::Refused) -> Self {
        match CODES.into_iter().find(|code| *code == refused.code) {
            Some(code) if (400..600).contains(&refused.status) => {
                Self::new(refused.status, code, refused.detail)
            }
            _ => Self::bug(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status, self.code)
    }
}

impl std::error::Error for Refusal {}

/// What an error of the query engine means to the caller.
#[derive(Debug)]
pub enum Failure {
    /// The caller's mistake, or a bound.
    Refused(Refusal),
    /// Stored bytes may be at fault: look which object.
    MaybeCorrupt,
    /// The query engine failed at something it should not.
    Engine,
}

/// How the reader of files begins what it says of a condition that failed on a batch. It says it in its own words: of what
/// failed nothing else is left, and no stored byte is at fault.
const CONDITION_FAILED: &str = "Error evaluating filter predicate";

/// What lies at the root of an error, where that says what it is: the reader of files wraps what it is given in its own.
fn root(error: &DataFusionError) -> Option<Failure> {
    let mut next: Option<&dyn std::error::Error> = Some(error);
    let mut away = None;
    while let Some(error) = next {
        if let Some(refusal) = error.downcast_ref::<Refusal>() {
            return Some(Failure::Refused(refusal.clone()));
        }
        if let Some(ArrowError::ComputeError(text)) = error.downcast_ref::<ArrowError>()
            && text.starts_with(CONDITION_FAILED)
        {
            return Some(Failure::Refused(Refusal::value()));
        }
        if let Some(store) = error.downcast_ref::<StoreError>()
            && !matches!(store, StoreError::NotFound { .. })
            && Damaged::find(store).is_none()
        {
            away = Some(Failure::Refused(Refusal::storage_unavailable()));
        }
        next = error.source();
    }
    away
}

impl Failure {
    /// Sorts an error. `DataFusionError` wraps errors in many layers; the innermost decides.
    pub fn of(error: &DataFusionError) -> Self {
        let refused = |status, code, detail: String| Self::Refused(Refusal::new(status, code, detail));
        if let Some(failure) = root(error) {
            return failure;
        }
        match error.find_root() {
            DataFusionError::ResourcesExhausted(_) => Self::Refused(Refusal::memory()),
            DataFusionError::Plan(text) if text.starts_with("table '") && text.ends_with("not found") => {
                Self::Refused(Refusal::table_not_found())
            }
            DataFusionError::Plan(text) | DataFusionError::NotImplemented(text) => {
                refused(400, "invalid_query", sentence(text))
            }
            root @ (DataFusionError::SchemaError(..) | DataFusionError::SQL(..)) => {
                refused(400, "invalid_query", sentence(&root.to_string()))
            }
            DataFusionError::Diagnostic(_, inner) => Self::of(inner),
            DataFusionError::Shared(inner) => Self::of(inner),
            DataFusionError::Collection(errors) => errors.first().map_or(Self::Engine, Self::of),
            // A cast, a division: the query's to change.
            DataFusionError::Execution(_) => Self::Refused(Refusal::value()),
            DataFusionError::ArrowError(error, _) => match **error {
                ArrowError::ParquetError(_)
                | ArrowError::IpcError(_)
                | ArrowError::ExternalError(_)
                | ArrowError::IoError(..) => Self::MaybeCorrupt,
                ArrowError::MemoryError(_) => Self::Refused(Refusal::memory()),
                _ => Self::Refused(Refusal::value()),
            },
            DataFusionError::ObjectStore(_) => Self::MaybeCorrupt,
            DataFusionError::ParquetError(_)
            | DataFusionError::IoError(_)
            | DataFusionError::ExecutionJoin(_)
            | DataFusionError::External(_) => Self::MaybeCorrupt,
            _ => Self::Engine,
        }
    }
}

/// A planner's message as a detail: one line without a full stop.
fn sentence(text: &str) -> String {
    shortened(text, DETAIL_BYTES_MAX).trim_end_matches('.').to_owned()
}

/// The first line of `text`, cut at a character.
#[must_use]
pub fn shortened(text: &str, bytes_max: usize) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.get(..line.floor_char_boundary(bytes_max)).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use arrow::error::ArrowError;
    use datafusion::common::DataFusionError;
    use object_store::Error as StoreError;
    use parquet::errors::ParquetError;

    use super::{Failure, Refusal};

    fn code(error: &DataFusionError) -> &'static str {
        match Failure::of(error) {
            Failure::Refused(refusal) => refusal.code,
            Failure::MaybeCorrupt => "maybe corrupt",
            Failure::Engine => "engine",
        }
    }

    /// A store that is away is no damage, however deep its error is wrapped.
    #[test]
    fn a_store_that_is_away_is_told_from_damage_however_its_error_is_wrapped() {
        let away = || StoreError::Generic { store: "s", source: "timed out".into() };
        let gone = || StoreError::NotFound { path: "p".into(), source: "gone".into() };
        let in_parquet = |error: StoreError| DataFusionError::from(ParquetError::External(Box::new(error)));
        let in_arrow = |error: StoreError| {
            let error = ArrowError::from_external_error(Box::new(error));
            DataFusionError::from(error).context("while reading")
        };
        for wrapped in [in_parquet(away()), in_arrow(away()), DataFusionError::from(away())] {
            assert_eq!(code(&wrapped), "storage_unavailable");
        }
        for wrapped in [in_parquet(gone()), in_arrow(gone()), DataFusionError::from(gone())] {
            assert_eq!(code(&wrapped), "maybe corrupt");
        }
        assert_eq!(code(&DataFusionError::from(ParquetError::EOF("short".into()))), "maybe corrupt");
        let refused = || StoreError::Generic { store: "s", source: Box::new(Refusal::memory()) };
        for wrapped in [in_parquet(refused()), in_arrow(refused()), DataFusionError::from(refused())] {
            assert_eq!(code(&wrapped), "query_limit");
        }
    }

    // B1: a planner's message may quote a statement of any length.
    #[test]
    fn a_planners_message_is_cut() {
        let of = |text: &str| match Failure::of(&DataFusionError::Plan(text.to_owned())) {
            Failure::Refused(Refusal { detail, .. }) => detail,
            other => panic!("{other:?}"),
        };
        assert_eq!(of("there is no column x.\nDid you mean y?"), "there is no column x");
        assert_eq!(of(&"x".repeat(10_000)).len(), 300);
        assert_eq!(of(&"ä".repeat(10_000)).len(), 300);
    }
}
