//! The ways in: which route takes what, and how its clients read an answer.

use storage::record::Kind;

use crate::reply::{Dialect, Signal};

/// A route that takes records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// `POST /v1/traces`.
    OtlpTraces,
    /// `POST /v1/logs`.
    OtlpLogs,
    /// `POST /v1/metrics`.
    OtlpMetrics,
    /// `POST /api/v1/events`.
    Events,
    /// `POST /api/v1/audit`.
    Audit,
    /// `POST /write`.
    WriteV1,
    /// `POST /api/v2/write`.
    WriteV2,
    /// `POST /api/v3/write_lp`.
    WriteV3,
}

impl Route {
    /// Every route.
    pub const ALL: [Self; 8] = [
        Self::OtlpTraces,
        Self::OtlpLogs,
        Self::OtlpMetrics,
        Self::Events,
        Self::Audit,
        Self::WriteV1,
        Self::WriteV2,
        Self::WriteV3,
    ];

    /// The route's name in metrics and fingerprints.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OtlpTraces => "otlp_traces",
            Self::OtlpLogs => "otlp_logs",
            Self::OtlpMetrics => "otlp_metrics",
            Self::Events => "events",
            Self::Audit => "audit",
            Self::WriteV1 => "write_v1",
            Self::WriteV2 => "write_v2",
            Self::WriteV3 => "write_v3",
        }
    }

    /// How the route's clients read an answer.
    #[must_use]
    pub fn dialect(self) -> Dialect {
        match self {
            Self::OtlpTraces => Dialect::Otlp(Signal::Traces),
            Self::OtlpLogs => Dialect::Otlp(Signal::Logs),
            Self::OtlpMetrics => Dialect::Otlp(Signal::Metrics),
            Self::Events | Self::Audit => Dialect::Problem,
            Self::WriteV1 => Dialect::InfluxV1,
            Self::WriteV2 => Dialect::InfluxV2,
            Self::WriteV3 => Dialect::InfluxV3,
        }
    }

    /// What the route's records become; `None` where nothing takes them yet.
    #[must_use]
    pub fn kind(self) -> Option<Kind> {
        match self {
            Self::OtlpTraces => Some(Kind::Spans),
            Self::OtlpLogs => Some(Kind::Logs),
            Self::OtlpMetrics => None,
            Self::Audit => Some(Kind::Audit),
            Self::Events | Self::WriteV1 | Self::WriteV2 | Self::WriteV3 => Some(Kind::Events),
        }
    }

    pub(crate) fn is_line_protocol(self) -> bool {
        matches!(self, Self::WriteV1 | Self::WriteV2 | Self::WriteV3)
    }
}
