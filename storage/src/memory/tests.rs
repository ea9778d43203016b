//! B1 and X2: what is lent never exceeds a pool's part, and the heavy tenant is refused first.

use std::sync::Arc;

use super::{Charge, Memory, Pool, Short};
use crate::record::Tenant;

const CAP: u64 = 100_000;

fn tenant(name: &str) -> Tenant {
    Tenant::parse(name).unwrap()
}

/// Takes piece after piece until it is refused.
fn fill(memory: &Arc<Memory>, pool: Pool, name: &str, piece: u64) -> (Vec<Charge>, Short) {
    let mut held = Vec::new();
    loop {
        match memory.take(pool, Some(&tenant(name)), piece) {
            Ok(charge) => held.push(charge),
            Err(short) => return (held, short),
        }
    }
}

#[test]
fn the_parts_are_the_whole() {
    assert_eq!(Pool::ALL.into_iter().map(Pool::percent).sum::<u64>(), 100);
    for (at, pool) in Pool::ALL.into_iter().enumerate() {
        assert_eq!(at, pool as usize);
    }
    let memory = Memory::new(CAP + 10_000, 10_000);
    assert_eq!(Pool::ALL.into_iter().map(|pool| memory.max(pool)).sum::<u64>(), CAP + 5_000);
    assert_eq!((memory.max(Pool::Tables), memory.used_in_all()), (5_000, 5_000));
}

// X2
#[test]
fn the_heavy_one_is_refused_first() {
    let memory = Memory::new(CAP, 0);
    let max = memory.max(Pool::Hot);
    let (heavy, short) = fill(&memory, Pool::Hot, "heavy", 100);
    assert_eq!(short, Short::Share);
    assert!(memory.used_by(Pool::Hot, &tenant("heavy")) >= max * 7 / 10);
    assert!(memory.used_by(Pool::Hot, &tenant("heavy")) <= memory.alone_max(Pool::Hot));
    // Three more heavy ones, and still there is room for one who comes last.
    let others = ["b", "c", "d"].map(|name| fill(&memory, Pool::Hot, name, 100));
    let late = memory.take(Pool::Hot, Some(&tenant("late")), 10).expect("there is room for one more");
    assert_eq!(memory.refused(Pool::Hot).1, 0);
    drop((heavy, others, late));
    assert_eq!(memory.used(Pool::Hot), 0);
    assert_eq!(memory.used_by(Pool::Hot, &tenant("heavy")), 0);
}

#[test]
fn what_never_fits_is_refused_for_good() {
    let memory = Memory::new(CAP, 0);
    let alone_max = memory.alone_max(Pool::Decode);
    assert_eq!(
        memory.take(Pool::Decode, Some(&tenant("a")), alone_max + 8).unwrap_err(),
        Short::Never { alone_max }
    );
    assert_eq!(
        memory.take(Pool::Decode, Some(&tenant("a")), u64::MAX).unwrap_err(),
        Short::Never { alone_max }
    );
    let whole = memory.take(Pool::Decode, Some(&tenant("a")), alone_max).expect("it fits alone");
    assert_eq!(whole.bytes(), alone_max);
}

// B1
#[test]
fn no_pool_takes_another_ones_room() {
    let memory = Memory::new(CAP, 0);
    let _hot = memory.count(Pool::Hot, Some(&tenant("a")), CAP);
    assert_eq!(memory.take(Pool::Hot, Some(&tenant("b")), 1).unwrap_err(), Short::Whole);
    let mut seal = memory.take(Pool::Seal, None, memory.max(Pool::Seal)).expect("sealing has its own");
    assert!(seal.grow(1).is_err());
    seal.shrink_to(10);
    assert_eq!(memory.used(Pool::Seal), 10);
    seal.grow(5).unwrap();
    assert_eq!(seal.bytes(), 15);
}

// B1
#[test]
fn threads_together_never_exceed_the_pool() {
    let memory = Memory::new(CAP, 0);
    std::thread::scope(|scope| {
        for name in ["a", "b", "c", "d"] {
            let memory = Arc::clone(&memory);
            scope.spawn(move || {
                for round in 1..2_000_u64 {
                    let charge = memory.take(Pool::Edge, Some(&tenant(name)), round % 997 * 16);
                    assert!(memory.used(Pool::Edge) <= memory.max(Pool::Edge));
                    drop(charge);
                }
            });
        }
    });
    assert_eq!(memory.used(Pool::Edge), 0);
}

#[test]
fn a_part_of_a_charge_is_given_back_on_its_own() {
    let memory = Memory::new(CAP, 0);
    let mut whole = memory.take(Pool::Hot, Some(&tenant("a")), 100).unwrap();
    let part = whole.split(30);
    assert_eq!((whole.bytes(), part.bytes(), memory.used_by(Pool::Hot, &tenant("a"))), (70, 30, 100));
    drop(part);
    assert_eq!((memory.used(Pool::Hot), memory.used_by(Pool::Hot, &tenant("a"))), (70, 70));
    assert_eq!(whole.split(1_000).bytes(), 70);
    whole.count(5);
    assert_eq!(memory.used(Pool::Hot), 5);
}

// X2: asked before a body is read.
#[test]
fn what_would_be_refused_is_known_before() {
    let memory = Memory::new(CAP, 0);
    assert_eq!(memory.refusal(Pool::Hot, &tenant("heavy"), 1), None);
    let (heavy, short) = fill(&memory, Pool::Hot, "heavy", 1);
    assert_eq!((short, memory.refusal(Pool::Hot, &tenant("heavy"), 1)), (Short::Share, Some(Short::Share)));
    assert_eq!(memory.refusal(Pool::Hot, &tenant("light"), 1), None);
    let _rest = memory.count(Pool::Hot, None, memory.max(Pool::Hot) - memory.used(Pool::Hot));
    assert_eq!(memory.refusal(Pool::Hot, &tenant("light"), 1), Some(Short::Whole));
    assert_eq!(memory.refusal(Pool::Hot, &tenant("heavy"), 1), Some(Short::Share));
    drop(heavy);
}
