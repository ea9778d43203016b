//! From a socket's bytes to a clean, measured chunk of columns.

pub mod admit;
pub mod correlate;
pub mod decode;
pub mod inflate;
pub mod measure;
