//! One job as it is kept: `system/jobs/{id}.json`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Wish;

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Removes rows that are past their retention.
    Retention,
    /// Deletes files that no version names.
    Sweep,
    /// Writes a checkpoint of every table's log.
    Checkpoint,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Retention, Self::Sweep, Self::Checkpoint];

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retention => "retention",
            Self::Sweep => "sweep",
            Self::Checkpoint => "checkpoint",
        }
    }
}

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It waits for the ones before it.
    Queued,
    /// It is on.
    Running,
    /// It did all it was asked.
    Succeeded,
    /// It did not, or not all.
    Failed,
}

impl Status {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }
}

/// One job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobRecord {
    /// Its id; ids rise with time.
    pub id: String,
    /// What it does.
    pub kind: Kind,
    /// Whose tables; `None` = all.
    pub tenant: Option<String>,
    /// Which dataset, where it concerns one.
    pub dataset: Option<String>,
    /// How far it is.
    pub status: Status,
    /// Public id of the key that asked, or `schedule`.
    pub asked_by: String,
    /// Nanoseconds since 1970 UTC.
    pub created_ns: i64,
    /// Nanoseconds since 1970 UTC; `None` = not begun.
    pub started_ns: Option<i64>,
    /// Nanoseconds since 1970 UTC; `None` = not ended.
    pub ended_ns: Option<i64>,
    /// A stable code of why it failed.
    pub code: Option<String>,
    /// In a few words.
    pub detail: String,
    /// What it did, in numbers.
    pub result: Value,
}

impl JobRecord {
    /// A job that waits.
    pub fn new(wish: &Wish, now_ns: i64) -> Self {
        Self {
            id: uuid::Uuid::now_v7().simple().to_string(),
            kind: wish.kind,
            tenant: wish.scope.as_ref().map(|tenant| tenant.as_str().to_owned()),
            dataset: wish.dataset.as_ref().map(|dataset| dataset.as_str().to_owned()),
            status: Status::Queued,
            asked_by: wish.asked_by.clone(),
            created_ns: now_ns,
            started_ns: None,
            ended_ns: None,
            code: None,
            detail: String::new(),
            result: Value::Null,
        }
    }

    /// Whether nothing more comes of it.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(self.status, Status::Succeeded | Status::Failed)
    }

    /// Ends it without success.
    pub fn fail(&mut self, code: &str, detail: impl Into<String>) {
        self.status = Status::Failed;
        self.code = Some(code.to_owned());
        self.detail = detail.into();
    }
}
