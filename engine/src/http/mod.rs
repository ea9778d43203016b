//! The HTTP edge: sockets to requests, and answers back.
//!
//! `listen` accepts and hands sockets to lanes, each a thread with a runtime of its own; `connection` speaks HTTP
//! over one socket (`wire`, which reads `heads` along and makes hyper's `bare` refusals like ours); `serve` takes one request through the contract's order of refusal; `body` reads
//! bodies within their bounds; `answer` gives every answer the headers that all have, and `outgoing` counts it
//! until it is handed over.

mod answer;
mod bare;
mod body;
mod connection;
mod cors;
mod framing;
mod heads;
mod listen;
mod outgoing;
mod serve;
mod strangers;
mod unread;
mod wire;

pub use answer::{Answer, Body, json, problem};
pub use listen::start;
