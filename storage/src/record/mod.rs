//! The record model: which columns a row has, how a chunk of rows grows and closes.
//!
//! Both neighbours meet here. A decoder fills a [`Draft`]; scrubbing turns it into a [`Clean`] chunk, the
//! only thing a [`crate::Writer`] takes (P1); [`fit`] makes it fit its dataset's columns.

mod clean;
mod column;
mod draft;
mod entries;
pub mod fit;
mod ids;
pub mod json_text;
mod kind;
mod nulls;
pub mod schema;
pub mod sparse;

pub use clean::Clean;
pub use column::{Column, PlainColumn, TextColumn};
pub use draft::{ATTRIBUTE_COLUMNS_MAX, AttributeColumn, Draft, SPARSE_CELLS_MAX, Taken, Value};
pub use ids::{Dataset, SYSTEM_TENANT, TableId, Tenant};
pub use kind::{Field, Kind, Type};
pub(crate) use nulls::Nulls;
