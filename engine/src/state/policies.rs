//! Retention and legal holds: kept before they hold, and told to storage in the order they were kept.

use storage::Rules;
use storage::record::{Dataset, TableId, Tenant};

use super::{Error, Held, HoldRecord, RetentionRecord, State};

/// Holds of one tenant that are in force.
const HOLDS_MAX: usize = 1_000;

/// What storage is to obey. Records that this build cannot read are left out but for holds, which start refuses.
fn rules(held: &Held) -> Result<Rules, Error> {
    let table = |tenant: &str, dataset: &str| {
        let tenant = Tenant::parse(tenant).ok()?;
        Some(TableId::new(tenant, Dataset::parse(dataset).ok()?))
    };
    let mut rules = Rules::default();
    for (tenant, record) in &held.retention {
        let known = record.days.iter().filter_map(|(dataset, days)| Some((table(tenant, dataset)?, *days)));
        rules.retention_days.extend(known);
    }
    for hold in held.holds.values() {
        // R1: a hold that nobody understands must not be passed over.
        let table = table(&hold.tenant, &hold.dataset)
            .ok_or_else(|| Error::Corrupt(format!("system/holds/{}.json", hold.id)))?;
        rules.held.insert(table);
    }
    Ok(rules)
}

impl State {
    /// What storage is to obey.
    ///
    /// # Errors
    /// [`Error::Corrupt`] naming a hold that cannot be read.
    pub async fn rules(&self) -> Result<Rules, Error> {
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
        apply(rules(&held)?);
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
        apply(rules(&held)?);
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
        apply(rules(&held)?);
        Ok(hold)
    }
}
