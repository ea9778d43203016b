//! Stage `admit`: what one request spends, with all three limits set.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use ingest::admit::{Class, Limiter, Policy, Rate};
use storage::record::Tenant;

/// Times one tenant's spend.
pub fn stage(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("admit");
    let limiter = Limiter::default();
    let tenant = Tenant::parse("acme").expect("a good id");
    // So much that nothing is ever refused: a refusal is another, shorter way.
    let rate = Some(Rate { quota: 1 << 40, window_s: 1 });
    limiter.set(&tenant, Policy { requests: rate, records: rate, bytes: rate });
    group.throughput(Throughput::Elements(1));
    group.bench_function("spend", |bencher| {
        let mut now_ns = 0;
        bencher.iter(|| {
            now_ns += 1_000_000;
            let _ = black_box(limiter.spend_request(&tenant, Class::Ingest, now_ns));
            black_box(limiter.spend_stored(&tenant, 1_000, 400_000, now_ns))
        });
    });
    group.finish();
}
