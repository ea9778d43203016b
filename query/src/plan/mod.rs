//! From a request to a plan: which statements are open, which tables a request can name, how they are read.

pub mod attr;
pub mod batch;
pub mod functions;
pub mod guard;
mod hot;
pub mod session;
pub mod size;
mod source;
pub mod table;
pub mod work;
