//! Places in a row that all tenants stand in: so many for each, so that none fills it alone (X2).

use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use storage::record::Tenant;

/// How many places each tenant holds. Tenants that hold none are not remembered.
#[derive(Debug)]
pub struct Turns {
    held: DashMap<Tenant, usize>,
    each_max: usize,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub struct Place {
    turns: Arc<Turns>,
    tenant: Tenant,
}

impl Turns {
    /// At most `each_max` places for each tenant.
    #[must_use]
    pub fn new(each_max: usize) -> Arc<Self> {
        Arc::new(Self { held: DashMap::new(), each_max })
    }

    /// A place more for a tenant; `None` where it holds its share.
    #[must_use]
    pub fn enter(self: &Arc<Self>, tenant: &Tenant) -> Option<Place> {
        let mut held = self.held.entry(tenant.clone()).or_default();
        if *held >= self.each_max {
            return None;
        }
        *held += 1;
        Some(Place { turns: Arc::clone(self), tenant: tenant.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Entry::Occupied(mut held) = self.turns.held.entry(self.tenant.clone()) {
            *held.get_mut() = held.get().saturating_sub(1);
            if *held.get() == 0 {
                held.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use storage::record::Tenant;

    use super::Turns;

    #[test]
    fn a_tenant_that_holds_its_places_waits_and_others_do_not() {
        let turns = Turns::new(2);
        let [acme, other] = ["acme", "other"].map(|id| Tenant::parse(id).expect("a good id"));
        let first = turns.enter(&acme);
        let second = turns.enter(&acme);
        assert!(first.is_some() && second.is_some() && turns.enter(&acme).is_none());
        assert!(turns.enter(&other).is_some());
        drop(first);
        assert!(turns.enter(&acme).is_some());
        drop(second);
        assert!(turns.held.is_empty(), "who holds nothing is not remembered");
    }
}
