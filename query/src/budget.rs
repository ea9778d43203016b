//! Memory of one typed read: its tenant's share of the pool for reads (B1, X2).
//!
//! Decoded columns, sorted keys and the rendered page are charged before they exist. The query engine lends from the
//! same charge. A reply keeps what it holds until its last byte is handed to the connection.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use datafusion::common::{Result as EngineResult, resources_datafusion_err};
use datafusion::execution::memory_pool::{MemoryPool, MemoryReservation};
use storage::memory::{Charge, Memory, Pool, Short};
use storage::record::Tenant;

use crate::refusal::Refusal;

/// Bytes of one page of rendered JSON at most; a page that would be larger ends with its cursor. One row that alone
/// is larger makes a page.
pub const PAGE_BYTES_MAX: usize = 8 << 20;

/// Bytes by which a reply's buffer and its charge grow.
const STEP_BYTES: usize = 256 << 10;

/// What one typed read may hold.
pub struct Budget {
    memory: Arc<Memory>,
    tenant: Tenant,
    engine: Mutex<Engine>,
}

/// What the query engine holds of it.
struct Engine {
    used: u64,
    charge: Charge,
    /// Why it was refused last.
    short: Option<Short>,
}

impl Budget {
    /// A budget of that tenant, of which nothing is taken yet.
    #[must_use]
    pub fn new(memory: &Arc<Memory>, tenant: &Tenant) -> Arc<Self> {
        let charge = memory.count(Pool::Read, Some(tenant), 0);
        let engine = Mutex::new(Engine { used: 0, charge, short: None });
        Arc::new(Self { memory: Arc::clone(memory), tenant: tenant.clone(), engine })
    }

    /// Takes bytes that are about to be allocated.
    ///
    /// # Errors
    /// Why they are not to be had.
    pub fn take(&self, bytes: usize) -> Result<Charge, Short> {
        self.memory.take(Pool::Read, Some(&self.tenant), bytes as u64)
    }

    /// Why the query engine was refused memory, if it was.
    #[must_use]
    pub fn short(&self) -> Option<Short> {
        self.engine().short
    }

    fn engine(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock().expect("no panic happens under this lock")
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Budget")
    }
}

impl MemoryPool for Budget {
    fn name(&self) -> &'static str {
        "read"
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        // It cannot be refused: what is not lent is not counted, and the next that can be refused is.
        if self.try_grow(reservation, additional).is_err() {
            self.engine().used += additional as u64;
        }
    }

    fn shrink(&self, _reservation: &MemoryReservation, shrink: usize) {
        let mut engine = self.engine();
        engine.used = engine.used.saturating_sub(shrink as u64);
        let used = engine.used;
        if engine.charge.bytes() > used {
            engine.charge.shrink_to(used);
        }
    }

    fn try_grow(&self, _reservation: &MemoryReservation, additional: usize) -> EngineResult<()> {
        let mut engine = self.engine();
        let used = engine.used + additional as u64;
        let missing = used.saturating_sub(engine.charge.bytes());
        match engine.charge.grow(missing) {
            Ok(()) => {
                engine.used = used;
                Ok(())
            }
            Err(short) => {
                engine.short = Some(short);
                Err(resources_datafusion_err!("the tenant's share of the memory for reads"))
            }
        }
    }

    fn reserved(&self) -> usize {
        usize::try_from(self.engine().used).unwrap_or(usize::MAX)
    }
}

/// What a client is told when memory for a read is short.
#[must_use]
pub fn refusal(short: Short) -> Refusal {
    match short {
        Short::Never { alone_max } => Refusal::query_limit(format!(
            "the read needs more than the {alone_max} bytes of memory that one tenant's reads may have; narrow it by \
             time or filters"
        )),
        Short::Share => Refusal::new(
            503,
            "share_exceeded",
            "this tenant's reads hold their share of the memory for reads; try again when some have ended",
        ),
        Short::Whole => {
            Refusal::new(503, "pressure", "the memory for reads is lent out; try again in a moment")
        }
    }
}

/// A reply as it is rendered, and the memory that it holds.
#[derive(Debug)]
pub struct Out {
    bytes: Vec<u8>,
    charge: Charge,
}

impl Out {
    /// An empty reply.
    ///
    /// # Errors
    /// Why there is no memory for its head and end.
    pub fn new(budget: &Budget) -> Result<Self, Short> {
        let mut out = Self { bytes: Vec::new(), charge: budget.take(0)? };
        out.reserve(0)?;
        Ok(out)
    }

    /// Makes room for `bytes` and for a reply's end.
    fn reserve(&mut self, bytes: usize) -> Result<(), Short> {
        let needed = self.bytes.len() + bytes + TAIL_BYTES;
        if needed > self.bytes.capacity() {
            let capacity =
                if needed <= SMALL_BYTES { SMALL_BYTES } else { needed.next_multiple_of(STEP_BYTES) };
            let missing = (capacity as u64).saturating_sub(self.charge.bytes());
            self.charge.grow(missing)?;
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        Ok(())
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// Why there is no memory for them: nothing was appended.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Short> {
        self.reserve(bytes.len())?;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// Appends a reply's end, for which there is always room.
    pub fn end(&mut self, bytes: &[u8]) {
        debug_assert!(bytes.len() <= TAIL_BYTES, "an end that is longer than what is kept free for it");
        self.bytes.extend_from_slice(bytes);
    }

    /// Bytes so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The reply's bytes, which hold their memory until the last copy of them is dropped.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Out {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Bytes that are kept free for a reply's end: brackets and a cursor.
const TAIL_BYTES: usize = 4 << 10;

/// Bytes of a buffer that most replies do not outgrow.
const SMALL_BYTES: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use storage::memory::{Memory, Pool, Short};
    use storage::record::Tenant;

    use super::{Budget, Out};

    /// B1: a rendered reply is charged before it exists, and until its last byte is gone.
    #[test]
    fn a_reply_holds_its_memory_until_it_is_dropped() {
        let memory = Memory::new(100 << 20, 0);
        let tenant = Tenant::parse("a").unwrap();
        let budget = Budget::new(&memory, &tenant);
        let mut out = Out::new(&budget).unwrap();
        for _ in 0..1_000 {
            out.push(&[b'x'; 1_000]).unwrap();
            assert!(memory.used(Pool::Read) >= out.len() as u64);
        }
        let body = out.into_bytes();
        let copy = body.clone();
        drop(body);
        assert!(memory.used_by(Pool::Read, &tenant) >= 1_000_000, "a copy waits for its client");
        drop(copy);
        assert_eq!(memory.used(Pool::Read), 0);
        let mut out = Out::new(&budget).unwrap();
        let refused = loop {
            if let Err(short) = out.push(&vec![b'x'; 100_000]) {
                break short;
            }
        };
        assert!(matches!(refused, Short::Never { .. }), "{refused:?}");
        assert!(out.len() as u64 <= memory.alone_max(Pool::Read));
    }
}
