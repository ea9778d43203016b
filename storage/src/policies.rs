//! How long each dataset is kept, and which datasets are held: what expiry, sweeping and admission see.
//!
//! Whoever keeps policies and holds (the engine) tells storage all of them at once, at the start and on every
//! change. Until it was told, nothing is deleted: a hold that is not known yet wins as well.

use std::collections::{HashMap, HashSet};

use arc_swap::ArcSwap;

use crate::record::{TableId, Tenant};

/// Nanoseconds in a day.
pub const DAY_NS: i64 = 86_400_000_000_000;

/// What holds at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Days that a dataset's rows are kept, by event time; a dataset that is not named is kept for ever.
    pub retention_days: HashMap<TableId, u32>,
    /// Datasets of which nothing may be deleted.
    pub held: HashSet<TableId>,
    /// Tenants of which nothing may be deleted: they have a hold that does not say of what.
    pub held_tenants: HashSet<Tenant>,
    /// Whether nothing may be deleted at all: there is a hold that does not say whose.
    pub is_all_held: bool,
}

/// The rules in force, replaced as a whole.
#[derive(Debug, Default)]
pub struct Policies {
    rules: ArcSwap<Option<Rules>>,
}

impl Policies {
    /// Puts rules into force. Who reads from here on sees them.
    pub fn replace(&self, rules: Rules) {
        self.rules.store(std::sync::Arc::new(Some(rules)));
    }

    /// How many days the dataset's rows are kept; `None` = for ever.
    #[must_use]
    pub fn days(&self, table: &TableId) -> Option<u32> {
        self.rules.load().as_ref().as_ref()?.retention_days.get(table).copied()
    }

    /// The event time before which the dataset's rows are not kept; `None` = every time is.
    #[must_use]
    pub fn oldest_ns(&self, table: &TableId, now_ns: i64) -> Option<i64> {
        self.days(table).map(|days| cutoff_ns(days, now_ns))
    }

    /// Whether nothing of the dataset may be deleted (R1). So it is before any rules are known.
    #[must_use]
    pub fn is_held(&self, table: &TableId) -> bool {
        self.rules.load().as_ref().as_ref().is_none_or(|rules| {
            rules.is_all_held || rules.held.contains(table) || rules.held_tenants.contains(&table.tenant)
        })
    }
}

/// The event time that lies `days` before `now_ns`; what is older is past its retention.
#[must_use]
pub fn cutoff_ns(days: u32, now_ns: i64) -> i64 {
    now_ns.saturating_sub(DAY_NS.saturating_mul(i64::from(days)))
}

#[cfg(test)]
mod tests {
    use super::{DAY_NS, Policies, Rules, cutoff_ns};
    use crate::record::{Dataset, TableId, Tenant};

    fn table(dataset: &str) -> TableId {
        TableId::new(Tenant::parse("acme").unwrap(), Dataset::parse(dataset).unwrap())
    }

    /// R1: nothing is deleted before the holds are known.
    #[test]
    fn what_is_not_known_yet_is_held() {
        let policies = Policies::default();
        assert!(policies.is_held(&table("events")));
        assert_eq!(policies.days(&table("events")), None);
        let mut rules = Rules::default();
        rules.retention_days.insert(table("events"), 7);
        rules.held.insert(table("audit"));
        policies.replace(rules);
        assert!(!policies.is_held(&table("events")) && policies.is_held(&table("audit")));
        assert_eq!(policies.oldest_ns(&table("events"), 10 * DAY_NS), Some(3 * DAY_NS));
        assert_eq!(policies.oldest_ns(&table("audit"), 10 * DAY_NS), None);
    }

    /// R1: a hold that is not understood holds all that it may be about.
    #[test]
    fn a_hold_of_a_tenant_or_of_all_holds_every_dataset() {
        let policies = Policies::default();
        let tenant = Tenant::parse("acme").unwrap();
        policies.replace(Rules { held_tenants: [tenant].into(), ..Rules::default() });
        let other = TableId::new(Tenant::parse("other").unwrap(), Dataset::parse("events").unwrap());
        assert!(policies.is_held(&table("events")) && !policies.is_held(&other));
        policies.replace(Rules { is_all_held: true, ..Rules::default() });
        assert!(policies.is_held(&other));
    }

    #[test]
    fn the_longest_retention_does_not_overflow() {
        assert_eq!(cutoff_ns(u32::MAX, 0), -i64::MAX);
        assert_eq!(cutoff_ns(u32::MAX, -5), i64::MIN);
    }
}
