//! What Floodmark keeps, and the promise it keeps it under.
//!
//! Three nouns: a [`record::Clean`] chunk is what ingest hands over; a [`Writer`] makes it survive a crash
//! ([`Writer::append`] returning *is* the acknowledgement); a [`reader::Snapshot`] is one table at one version
//! together with the chunks that are not in it yet. [`Storage`] owns the rest: it seals chunks into Parquet,
//! commits them to one Delta table per tenant and dataset, and trims the log behind them.

pub mod backup;
mod bucket_log;
mod caretaker;
mod clock_trust;
mod commit;
mod compact;
pub mod cores;
mod declared;
mod deployment;
mod disk;
mod error;
mod expire;
mod faults;
#[cfg(test)]
mod fixture;
mod hot;
mod idempotency;
pub mod inspect;
mod keeper;
pub mod latency;
mod life;
#[cfg(test)]
mod longevity;
pub mod memory;
mod options;
mod policies;
mod principal;
pub mod reader;
pub mod record;
mod recovery;
mod reserve;
mod seal;
mod segment;
#[cfg(test)]
mod simulation;
mod store;
mod sweep;
mod table;
pub mod threads;
mod wal;
mod writer;

pub use declared::DeclaredKeySecret;
pub use deployment::{Check, Levels, Recovery, Stats, Storage};
pub use error::{Error, Kind as ErrorKind, Result};
pub use expire::{Ended, Expiry, Leaving, Refused};
pub use options::{Options, WalPlace};
pub use policies::Rules;
pub use principal::{Acknowledgement, Principal, Role, Roles};
pub use store::{UNTRUSTED, is_untrusted, local_root, open as open_store};
pub use sweep::Swept;
pub use writer::{Idempotency, Known, Receipt, Writer};
