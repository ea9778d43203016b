//! A criterion group per stage, named as the stage; `decode` stands against the textbook way to do the same work.
//!
//! ```text
//!   cargo bench -p benches -- decode            one stage
//!   cargo bench -p benches -- line_protocol     one format
//! ```
//! A stage's work is timed alone, on one thread, on bodies that look like those of real senders (`bodies.rs`).

mod admit;
mod bodies;
mod decode;
mod scrub;
mod store;
mod wal_shapes;

criterion::criterion_group!(
    stages,
    decode::stage,
    scrub::stage,
    scrub::measure_stage,
    admit::stage,
    store::wal_stage,
    store::segment_stage,
    wal_shapes::stage
);
criterion::criterion_main!(stages);
