//! Retention and legal holds: kept before they hold, and told to storage in the order they were kept.

use storage::Rules;
use storage::record::{Dataset, TableId, Tenant};

use super::{Error, Held, HoldRecord, RetentionRecord, State};

/// Holds of one tenant that are in force.
const HOLDS_MAX: usize = 1_000;

/// What storage is to obey. What this build cannot read of a retention is as if it were not there: nothing goes by it.
/// A hold that nobody understands must not be passed over (R1): it holds all that it may be about.
fn rules(held: &Held) -> Rules {
    let tenant = |text: &str| Tenant::parse(text).ok();
    let mut rules = Rules::default();
    for (name, record) in &held.retention {
        let Some(tenant) = tenant(name) else { continue };
        let known = record.days.iter().filter_map(|(dataset, days)| {
            let dataset = Dataset::parse(dataset).ok()?;
            Some((TableId::new(tenant.clone(), dataset), *days))
        });
        rules.retention_days.extend(known);
    }
    for hold in held.holds.values() {
        match (tenant(&hold.tenant), Dataset::parse(&hold.dataset).ok()) {
            (Some(tenant), Some(dataset)) => drop(rules.held.insert(TableId::new(tenant, dataset))),
            (Some(tenant), None) => drop(rules.held_tenants.insert(tenant)),
            (None, _) => rules.is_all_held = true,
        }
    }
    for hold in &held.newer_holds {
        match hold["tenant"].as_str().and_then(tenant) {
            Some(tenant) => drop(rules.held_tenants.insert(tenant)),
            None => rules.is_all_held = true,
        }
    }
    rules
}

impl State {
    /// What storage is to obey.
    pub async fn rules(&self) -> Rules {
        rules(&*self.held.lock().await)
    }

    /// How long the tenant's datasets are kept.
    pub async fn retention(&self, tenant: &Tenant) -> RetentionRecord {
        self.held.lock().await.retention.get(tenant.as_str()).cloned().unwrap_or_default()
    }

    /// Sets how many days a dataset is kept; `None` = for ever. `apply` puts it into force.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: nothing changed.
    pub async fn set_retention(
        &self,
        table: &TableId,
        days: Option<u32>,
        apply: impl FnOnce(Rules),
    ) -> Result<(), Error> {
        let mut held = self.held.lock().await;
        let tenant = table.tenant.as_str();
        let mut record = held.retention.get(tenant).cloned().unwrap_or_default();
        match days {
            Some(days) => drop(record.days.insert(table.dataset.as_str().to_owned(), days)),
            None => drop(record.days.remove(table.dataset.as_str())),
        }
        // E2: a policy is kept before it is acted upon.
        self.store.replace(&format!("retention/{tenant}"), &record).await?;
        held.retention.insert(tenant.to_owned(), record);
        apply(rules(&held));
        Ok(())
    }

    /// The tenant's holds in force, in the order they were placed.
    pub async fn holds(&self, tenant: &Tenant) -> Vec<HoldRecord> {
        let held = self.held.lock().await;
        held.holds.values().filter(|hold| hold.tenant == tenant.as_str()).cloned().collect()
    }

    /// Places a hold. `apply` puts it into force.
    ///
    /// # Errors
    /// [`Error::Full`] past the bound; [`Error::Unavailable`]: nothing changed.
    pub async fn place_hold(&self, hold: HoldRecord, apply: impl FnOnce(Rules)) -> Result<(), Error> {
        let mut held = self.held.lock().await;
        if held.holds.values().filter(|other| other.tenant == hold.tenant).count() >= HOLDS_MAX {
            return Err(Error::Full("holds", HOLDS_MAX));
        }
        self.store.create(&format!("holds/{}", hold.id), &hold).await?;
        held.holds.insert(hold.id.clone(), hold);
        apply(rules(&held));
        Ok(())
    }

    /// Releases a hold of the tenant; others on the same dataset stay. `apply` puts that into force.
    ///
    /// # Errors
    /// [`Error::NotFound`] for another tenant's hold too; [`Error::Unavailable`]: nothing changed.
    pub async fn release_hold(
        &self,
        tenant: &Tenant,
        id: &str,
        by: &str,
        now_ns: i64,
        apply: impl FnOnce(Rules),
    ) -> Result<HoldRecord, Error> {
        let mut held = self.held.lock().await;
        let found = held.holds.get(id).filter(|hold| hold.tenant == tenant.as_str()).cloned();
        let Some(mut hold) = found else { return Err(Error::NotFound) };
        hold.released_ns = Some(now_ns);
        hold.released_by = Some(by.to_owned());
        self.store.replace(&format!("holds/{id}"), &hold).await?;
        held.holds.remove(id);
        apply(rules(&held));
        Ok(hold)
    }
}
