//! Nothing is built from here: the benches are `stages.rs`, one group per stage.
