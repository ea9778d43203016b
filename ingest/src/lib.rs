//! From a socket's bytes to a clean, measured chunk of columns.

pub mod decode;
pub mod scrub;
