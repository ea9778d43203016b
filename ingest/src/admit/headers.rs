//! A tenant's limits as response headers (draft-ietf-httpapi-ratelimit-headers): what the policy is, and
//! what is left of it.

use std::fmt::Write;

use http::{HeaderName, HeaderValue};

use super::{Class, Denied, Limiter, Measure, Policy, Remaining, whole_seconds};
use storage::record::Tenant;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

impl Measure {
    /// The name of the measure's policy in the headers.
    fn policy_name(self, class: Class) -> &'static str {
        match self {
            Self::Requests => match class {
                Class::Ingest => "ingest-req",
                Class::Read => "read-req",
                Class::Operate => "operate-req",
            },
            Self::Records => "ingest-records",
            Self::Bytes => "ingest-bytes",
        }
    }

    /// The quota unit; requests are the draft's default.
    fn unit(self) -> &'static str {
        match self {
            Self::Requests => "",
            Self::Records => ";qu=\"records\"",
            Self::Bytes => ";qu=\"content-bytes\"",
        }
    }
}

impl Remaining {
    /// The two headers; none where nothing is limited.
    #[must_use]
    pub fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        let mut policy = String::new();
        let mut left = String::new();
        for (measure, rate, state) in &self.buckets {
            let name = measure.policy_name(Class::Ingest);
            write_policy(&mut policy, name, *measure, rate.quota, rate.window_s.max(1));
            write_left(&mut left, name, state.tokens, whole_seconds(state.full_in_ns));
        }
        pair(policy, left)
    }
}

impl Limiter {
    /// The headers of a denial: the tenant's policy for requests of that class, and the measure that is spent.
    #[must_use]
    pub fn denial_headers(
        &self,
        tenant: &Tenant,
        class: Class,
        denied: &Denied,
    ) -> Vec<(HeaderName, HeaderValue)> {
        let mut policy = String::new();
        let limited = limited(&self.get(tenant));
        for (measure, rate) in
            limited.filter(|(measure, _)| class == Class::Ingest || *measure == Measure::Requests)
        {
            write_policy(&mut policy, measure.policy_name(class), measure, rate.quota, rate.window_s.max(1));
        }
        let mut left = String::new();
        let name = denied.measure.policy_name(class);
        write_left(&mut left, name, denied.limit.saturating_sub(denied.used), denied.retry_after_s);
        pair(policy, left)
    }
}

fn limited(policy: &Policy) -> impl Iterator<Item = (Measure, super::Rate)> + use<> {
    Measure::ALL.into_iter().zip(policy.rates()).filter_map(|(measure, rate)| Some((measure, rate?)))
}

/// Structured fields hold integers of 15 digits at most.
const INTEGER_MAX: u64 = 999_999_999_999_999;

fn write_policy(out: &mut String, name: &str, measure: Measure, quota: u64, window_s: u32) {
    let (unit, quota) = (measure.unit(), quota.min(INTEGER_MAX));
    let comma = if out.is_empty() { "" } else { ", " };
    write!(out, "{comma}\"{name}\";q={quota}{unit};w={window_s}").expect("writing to a string");
}

fn write_left(out: &mut String, name: &str, tokens: u64, reset_s: u32) {
    let tokens = tokens.min(INTEGER_MAX);
    let comma = if out.is_empty() { "" } else { ", " };
    write!(out, "{comma}\"{name}\";r={tokens};t={reset_s}").expect("writing to a string");
}

fn pair(policy: String, left: String) -> Vec<(HeaderName, HeaderValue)> {
    let value = |text: String| HeaderValue::try_from(text).expect("names and numbers are ASCII");
    if policy.is_empty() {
        return Vec::new();
    }
    vec![(RATE_LIMIT_POLICY, value(policy)), (RATE_LIMIT, value(left))]
}
