//! A criterion group per stage, named as the stage, each against the textbook way to do the same work.
//!
//! ```text
//!   cargo bench -p benches -- decode            one stage
//!   cargo bench -p benches -- line_protocol     one format
//! ```
//! A stage's work is timed alone, on one thread, on bodies that look like those of real senders (`bodies.rs`).
//! Both sides read the same bytes and leave the same rows, which is checked before anything is timed.

mod bodies;
mod decode;

criterion::criterion_group!(stages, decode::stage);
criterion::criterion_main!(stages);
