//! `GET /api/v1/audit/traces`: the audit trail, filtered by date, source, user, decision or trace.

use storage::record::Kind;

use super::Call;
use crate::query::Answer;
use crate::refusal::Refusal;

/// Answers a page of audit records.
///
/// # Errors
/// As for any list.
pub async fn answer(call: &Call<'_>) -> Result<Answer, Refusal> {
    super::records::answer(call, Kind::Audit, "traces").await
}
