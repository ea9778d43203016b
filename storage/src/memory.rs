//! One cap on the memory of the serving process, shared out to pools and, within a pool, to tenants (B1, X2).
//!
//! Whoever is about to allocate by what a client sent takes a [`Charge`] first and drops it with the bytes. A pool
//! never lends more than its part of the cap, so no pool takes another's room: sealing goes on while ingest is
//! refused. Within a pool a tenant may hold at most `GENEROSITY` times what would still be free afterwards. One
//! heavy tenant alone gets three quarters, two get three sevenths each, and there is always room for one more: the
//! heavy one is refused first, and nobody has to count who is active.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;

use crate::record::Tenant;

/// What the process holds whatever is sent: its code, runtimes, stacks, and what the allocator keeps for itself. Half of
/// it is for what is known of the tables.
pub const BASE_BYTES: u64 = 60 << 20;

/// The smallest cap that a process does its work with.
pub const MEMORY_BYTES_MIN: u64 = 128 << 20;

/// What a tenant may hold of a pool for each byte that stays free. Chosen: a single tenant has three quarters.
const GENEROSITY: u64 = 3;

/// A part of the cap with one use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pool {
    /// Connections, request heads, bodies as they arrive, replies that wait for their client.
    Edge,
    /// A body while it is worked on: inflated text, columns, the frame for the log.
    Decode,
    /// Acknowledged rows and what was measured in them, until a table holds them.
    Hot,
    /// Seals: rows side by side, sorted, encoded, read back.
    Seal,
    /// Merges, and expiry at the edge of a file.
    Merge,
    /// Typed reads: decoded columns, rendered pages.
    Read,
    /// What is remembered between requests: declared keys, attribute names, completeness, failures.
    Kept,
    /// What is known of the tables: their files and columns. It is counted and never lent, for what is stored cannot be
    /// refused; where it is more than its part, tables that nobody uses rest at once.
    Tables,
}

impl Pool {
    /// Every pool.
    pub const ALL: [Self; 8] =
        [Self::Edge, Self::Decode, Self::Hot, Self::Seal, Self::Merge, Self::Read, Self::Kept, Self::Tables];

    /// The pool's name in metrics and errors.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Decode => "decode",
            Self::Hot => "hot",
            Self::Seal => "seal",
            Self::Merge => "merge",
            Self::Read => "read",
            Self::Kept => "kept",
            Self::Tables => "tables",
        }
    }

    /// The pool's part of the cap, in hundredths. Chosen so that a body at the limits of one request is still taken
    /// at the default cap, that a seal sorts a sixth of what may be hot, and that a merge takes eight files of a
    /// seal's: with fewer each row would be written more often. Together they are the whole. Tables have their part of
    /// what is set aside for the process.
    const fn percent(self) -> u64 {
        match self {
            Self::Edge => 12,
            Self::Decode => 32,
            Self::Hot => 25,
            Self::Seal => 12,
            Self::Merge => 10,
            Self::Read => 7,
            Self::Kept => 2,
            Self::Tables => 0,
        }
    }
}

/// Why bytes were not lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Short {
    /// One tenant alone may never hold so much of this pool: refuse for good (413).
    Never {
        /// The most that one tenant may hold, in bytes.
        alone_max: u64,
    },
    /// The tenant holds its share of a pool that is scarce: refuse it, the others go on (503 `share_exceeded`).
    Share,
    /// The pool is lent out: refuse whoever asks (503 `pressure`).
    Whole,
}

/// The cap, and who holds what of it.
pub struct Memory {
    memory_max: u64,
    base_bytes: u64,
    pools: [PoolUse; Pool::ALL.len()],
    tenants: DashMap<Tenant, Arc<TenantUse>>,
}

#[derive(Default)]
struct PoolUse {
    max: u64,
    used: AtomicU64,
    refused_share: AtomicU64,
    refused_whole: AtomicU64,
}

#[derive(Debug, Default)]
struct TenantUse {
    used: [AtomicU64; Pool::ALL.len()],
}

impl Memory {
    /// A cap of `memory_max` bytes, of which the process holds `base_bytes` whatever is sent.
    #[must_use]
    pub fn new(memory_max: u64, base_bytes: u64) -> Arc<Self> {
        let lent = memory_max.saturating_sub(base_bytes);
        let of_tables = base_bytes / 2;
        let max = |pool: Pool| match pool {
            Pool::Tables => of_tables,
            _ => lent / 100 * pool.percent(),
        };
        let pools = Pool::ALL.map(|pool| PoolUse { max: max(pool), ..PoolUse::default() });
        Arc::new(Self { memory_max, base_bytes: base_bytes - of_tables, pools, tenants: DashMap::new() })
    }

    /// Lends `bytes` of a pool, or says why not. What concerns no tenant (a head before its key was read, a merge)
    /// has no share.
    ///
    /// Take it before the bytes exist; it is given back when the charge is dropped.
    ///
    /// # Errors
    /// [`Short`]: nothing was lent.
    pub fn take(self: &Arc<Self>, pool: Pool, tenant: Option<&Tenant>, bytes: u64) -> Result<Charge, Short> {
        let mut charge = self.empty(pool, tenant);
        charge.grow(bytes)?;
        Ok(charge)
    }

    /// Whether so many bytes would be lent now, without lending them or counting a refusal: for whoever waits.
    #[must_use]
    pub fn has_room(&self, pool: Pool, tenant: Option<&Tenant>, bytes: u64) -> bool {
        let held = tenant.map_or(0, |tenant| self.used_by(pool, tenant));
        let after = self.used(pool).saturating_add(bytes);
        self.max(pool).checked_sub(after).is_some_and(|free| {
            tenant.is_none() || held.saturating_add(bytes) <= free.saturating_mul(GENEROSITY)
        })
    }

    /// Counts `bytes` that exist already and cannot be refused, such as rows that the log brings back. The pool may
    /// be over its part afterwards; then it lends nothing until they are gone.
    #[must_use]
    pub fn count(self: &Arc<Self>, pool: Pool, tenant: Option<&Tenant>, bytes: u64) -> Charge {
        let mut charge = self.empty(pool, tenant);
        charge.add(bytes);
        self.pools[pool as usize].used.fetch_add(bytes, Ordering::Relaxed);
        charge
    }

    /// What so many bytes more of a pool would be answered, without taking them; `None` where they would be lent.
    #[must_use]
    pub fn refusal(&self, pool: Pool, tenant: &Tenant, bytes: u64) -> Option<Short> {
        let held = self.used_by(pool, tenant).saturating_add(bytes);
        let free = self.max(pool).checked_sub(self.used(pool).saturating_add(bytes));
        if free.is_some_and(|free| held <= free.saturating_mul(GENEROSITY)) {
            return None;
        }
        Some(if free.is_some() || held > self.alone_max(pool) / 2 { Short::Share } else { Short::Whole })
    }

    fn empty(self: &Arc<Self>, pool: Pool, tenant: Option<&Tenant>) -> Charge {
        let tenant = tenant.map(|tenant| match self.tenants.get(tenant) {
            Some(known) => Arc::clone(&known),
            None => Arc::clone(&self.tenants.entry(tenant.clone()).or_default()),
        });
        Charge { memory: Arc::clone(self), pool, tenant, bytes: 0 }
    }

    /// The cap, in bytes.
    #[must_use]
    pub fn memory_max(&self) -> u64 {
        self.memory_max
    }

    /// What the process holds whatever is sent, in bytes.
    #[must_use]
    pub fn base_bytes(&self) -> u64 {
        self.base_bytes
    }

    /// Bytes that a pool lends at most.
    #[must_use]
    pub fn max(&self, pool: Pool) -> u64 {
        self.pools[pool as usize].max
    }

    /// Bytes that one tenant may hold of a pool that is otherwise empty.
    #[must_use]
    pub fn alone_max(&self, pool: Pool) -> u64 {
        self.max(pool) / (GENEROSITY + 1) * GENEROSITY
    }

    /// Bytes that a pool has lent.
    #[must_use]
    pub fn used(&self, pool: Pool) -> u64 {
        self.pools[pool as usize].used.load(Ordering::Relaxed)
    }

    /// Bytes that a tenant holds of a pool.
    #[must_use]
    pub fn used_by(&self, pool: Pool, tenant: &Tenant) -> u64 {
        self.tenants.get(tenant).map_or(0, |held| held.used[pool as usize].load(Ordering::Relaxed))
    }

    /// Bytes of all pools and of the process itself.
    #[must_use]
    pub fn used_in_all(&self) -> u64 {
        self.base_bytes + Pool::ALL.into_iter().map(|pool| self.used(pool)).sum::<u64>()
    }

    /// How often a pool refused a tenant over its share, and how often everybody.
    #[must_use]
    pub fn refused(&self, pool: Pool) -> (u64, u64) {
        let pool = &self.pools[pool as usize];
        (pool.refused_share.load(Ordering::Relaxed), pool.refused_whole.load(Ordering::Relaxed))
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("memory_max", &self.memory_max).finish_non_exhaustive()
    }
}

/// Bytes that are lent; dropping it gives them back.
pub struct Charge {
    memory: Arc<Memory>,
    pool: Pool,
    tenant: Option<Arc<TenantUse>>,
    bytes: u64,
}

impl Charge {
    /// Lends `bytes` more.
    ///
    /// # Errors
    /// [`Short`]: the charge is as it was.
    pub fn grow(&mut self, bytes: u64) -> Result<(), Short> {
        let pool = &self.memory.pools[self.pool as usize];
        let held = self.tenant.as_ref().map(|tenant| tenant.used[self.pool as usize].load(Ordering::Relaxed));
        let mut short = Short::Whole;
        let lent = pool.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            let after = used.checked_add(bytes)?;
            let free = pool.max.checked_sub(after);
            match (free, held) {
                (None, _) => {
                    short = Short::Whole;
                    None
                }
                (Some(free), Some(held)) if held.saturating_add(bytes) > free.saturating_mul(GENEROSITY) => {
                    short = Short::Share;
                    None
                }
                (Some(_), _) => Some(after),
            }
        });
        if lent.is_ok() {
            self.add(bytes);
            return Ok(());
        }
        let alone_max = if self.tenant.is_some() { self.memory.alone_max(self.pool) } else { pool.max };
        if self.bytes.saturating_add(bytes) > alone_max {
            return Err(Short::Never { alone_max });
        }
        // A pool that is lent out to one tenant is that tenant's doing.
        if held.is_some_and(|held| held.saturating_add(bytes) > alone_max / 2) {
            short = Short::Share;
        }
        let counter = if short == Short::Share { &pool.refused_share } else { &pool.refused_whole };
        counter.fetch_add(1, Ordering::Relaxed);
        Err(short)
    }

    fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
        if let Some(tenant) = &self.tenant {
            tenant.used[self.pool as usize].fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Gives back what is above `bytes`.
    pub fn shrink_to(&mut self, bytes: u64) {
        let less = self.bytes.saturating_sub(bytes);
        self.bytes -= less;
        if let Some(tenant) = &self.tenant {
            tenant.used[self.pool as usize].fetch_sub(less, Ordering::Relaxed);
        }
        self.memory.pools[self.pool as usize].used.fetch_sub(less, Ordering::Relaxed);
    }

    /// Parts with `bytes` of it, or all of it where it is less: they are given back on their own.
    #[must_use]
    pub fn split(&mut self, bytes: u64) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self { memory: Arc::clone(&self.memory), pool: self.pool, tenant: self.tenant.clone(), bytes }
    }

    /// Counts `bytes` more that exist already, as [`Memory::count`] does.
    pub fn count(&mut self, bytes: u64) {
        self.add(bytes);
        self.memory.pools[self.pool as usize].used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes that are lent.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

impl fmt::Debug for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Charge({}, {} bytes)", self.pool.as_str(), self.bytes)
    }
}

#[cfg(test)]
mod tests;
