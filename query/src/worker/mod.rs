//! Free SQL runs in worker processes: what cannot be interrupted runs where it can be killed (X3).
//!
//! ```text
//!   server                                                        worker: the same binary, nothing in its reach
//!   conduct ── turns (whose turn) ── pool (which process) ── link ══ socket ══ serve ── desk (asks the server)
//!      └─ lend: tables, file lists, hot rows, opened files                       └─ run: guard, plan, scan, render
//! ```
//! Everything that grows with a statement (parsing, planning, running, rendering) happens in the worker, under a
//! limit on its address space. The server only forwards: it answers what the worker asks from the tenant's view and
//! nothing else (T1), passes the reply on piece by piece, and kills the worker at the deadline. A worker serves one
//! tenant in its life, and is thrown away after any end but a clean one
//! (docs/decisions/0010-sql-in-worker-processes.md).

mod child;
mod conduct;
mod confine;
mod desk;
mod hot;
mod lend;
mod link;
mod near;
mod pool;
mod process;
mod run;
mod serve;
mod store;
mod table;
mod turns;
pub mod wire;

pub use conduct::Asked;
pub use lend::Lender;
pub use pool::{Counts, FORWARD_THREADS, Pool};
pub use process::{Launch, Options};
pub use serve::{Allocator, main};
pub use wire::Question;
