//! Floodmark tests
