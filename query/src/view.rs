//! What one request may see: the tenant's tables, at one version each (T1, Q1).

use std::collections::BTreeMap;
use std::sync::Arc;

use object_store::ObjectStore;
use storage::memory::Memory;
use storage::reader::{LatencySnapshot, Proofs, ProvenStore, Snapshot};
use storage::record::{Dataset, Kind, TableId, Tenant, schema};
use storage::{Principal, Roles, Storage};

use crate::refusal::Refusal;

/// Datasets that every tenant has, sealed or not.
const BUILT_IN: [Kind; 6] = Kind::ALL;

/// What a view stands on, beside its tables.
#[derive(Clone, Debug)]
pub struct Ground {
    /// The object store, rooted at the deployment.
    pub store: Arc<dyn ObjectStore>,
    /// What is known of its segments.
    pub proofs: Arc<Proofs>,
    /// The budget that reads are charged to.
    pub memory: Arc<Memory>,
}

/// The tables of one tenant as one principal sees them.
#[derive(Clone, Debug)]
pub struct View {
    tenant: Tenant,
    roles: Roles,
    store: Arc<ProvenStore>,
    memory: Arc<Memory>,
    tables: BTreeMap<String, Arc<Snapshot>>,
    latency: LatencySnapshot,
}

impl View {
    /// Takes snapshots of what the principal may see and `wants` names.
    pub fn open(storage: &Storage, principal: &Principal, wants: impl Fn(&str, Kind) -> bool) -> Self {
        let tenant = &principal.tenant;
        let snapshots = storage
            .datasets(tenant)
            .into_iter()
            .filter(|(dataset, kind)| principal.roles.reads(*kind) && wants(dataset.as_str(), *kind))
            .filter_map(|(dataset, _)| storage.snapshot(&TableId::new(tenant.clone(), dataset)))
            .collect();
        let latency = if principal.roles.reads(Kind::Latency) && wants(Kind::Latency.as_str(), Kind::Latency)
        {
            storage.latency(tenant)
        } else {
            LatencySnapshot::default()
        };
        let ground = Ground {
            store: storage.object_store(),
            proofs: Arc::clone(storage.proofs()),
            memory: Arc::clone(storage.memory()),
        };
        Self::new(tenant.clone(), principal.roles, ground, snapshots, latency)
    }

    /// A view of these snapshots.
    ///
    /// Snapshots of another tenant are a bug of the caller and left out, and so are kinds that these roles do not
    /// read.
    #[must_use]
    pub fn new(
        tenant: Tenant,
        roles: Roles,
        ground: Ground,
        snapshots: Vec<Snapshot>,
        latency: LatencySnapshot,
    ) -> Self {
        let mut tables: BTreeMap<String, Arc<Snapshot>> = BTreeMap::new();
        for kind in BUILT_IN.into_iter().filter(|kind| roles.reads(*kind)) {
            tables.insert(kind.as_str().to_owned(), Arc::new(empty(&tenant, kind)));
        }
        for snapshot in snapshots {
            // T1: the one place where tables become nameable.
            debug_assert!(snapshot.table.tenant == tenant, "T1: storage answered for another tenant");
            if snapshot.table.tenant == tenant && roles.reads(snapshot.kind) {
                tables.insert(snapshot.table.dataset.as_str().to_owned(), Arc::new(snapshot));
            }
        }
        let latency = if roles.reads(Kind::Latency) { latency } else { LatencySnapshot::default() };
        let files = tables.values().cloned().chain(latency.stored.clone().map(Arc::new));
        let store = Arc::new(ProvenStore::new(ground.store, ground.proofs, files));
        Self { tenant, roles, store, memory: ground.memory, tables, latency }
    }

    /// Whether the caller reads rows of that kind.
    #[must_use]
    pub fn reads(&self, kind: Kind) -> bool {
        self.roles.reads(kind)
    }

    /// Whose tables these are.
    #[must_use]
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// The object store, rooted at the deployment; it proves what it gives out of these tables (F40).
    #[must_use]
    pub fn store(&self) -> &Arc<ProvenStore> {
        &self.store
    }

    /// The budget that reads are charged to.
    #[must_use]
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// The tables by name.
    #[must_use]
    pub fn tables(&self) -> &BTreeMap<String, Arc<Snapshot>> {
        &self.tables
    }

    /// The tables that hold a kind of rows.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Arc<Snapshot>> {
        self.tables.values().filter(move |snapshot| snapshot.kind == kind)
    }

    /// The dataset of a list: the one asked for, or the built-in one.
    ///
    /// # Errors
    /// 404 where there is none of that name, 400 where it holds something else.
    pub fn dataset(&self, asked: Option<&str>, kind: Kind) -> Result<&Arc<Snapshot>, Refusal> {
        let name = asked.unwrap_or(kind.as_str());
        let snapshot = self
            .tables
            .get(name)
            .ok_or_else(|| Refusal::new(404, "dataset_not_found", "there is no such dataset"))?;
        let is_system_as_events = kind == Kind::Events && snapshot.kind == Kind::System;
        if snapshot.kind != kind && !is_system_as_events {
            return Err(Refusal::parameter(
                "dataset",
                format!("holds {}, not {}", snapshot.kind.as_str(), kind.as_str()),
            ));
        }
        Ok(snapshot)
    }

    /// The tenant's latency.
    #[must_use]
    pub fn latency(&self) -> &LatencySnapshot {
        &self.latency
    }
}

fn empty(tenant: &Tenant, kind: Kind) -> Snapshot {
    Snapshot {
        table: TableId::new(tenant.clone(), Dataset::built_in(kind)),
        kind,
        version: None,
        schema: schema::table_schema(kind, &[]),
        files: Vec::new(),
        hot: Vec::new(),
    }
}
