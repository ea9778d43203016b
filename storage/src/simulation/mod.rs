//! A world that fails by a seed: the same code under faults that a real machine shows once a year.

pub mod store;
