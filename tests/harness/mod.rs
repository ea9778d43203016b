//! What tests of the whole share: the engine as a process, a client that sends exactly these bytes.

mod http;
mod payloads;
pub mod place;
mod server;

pub use http::{Response, parse, raw, request};
pub use payloads::{shared_data, shared_folder, skipped};
pub use server::{KEY, Server, floodmark};
