//! The process: binary, CLI, configuration, identity, listeners and wiring.

pub mod cli;
pub mod client;
pub mod clock;
