//! Bodies that look like those of real senders: the same from run to run, varied from record to record.

use std::fmt::Write as _;

/// Time of the first record: 2026-01-02T03:04:05Z. Records follow a millisecond apart.
pub const FIRST_NS: i64 = 1_767_323_045_000_000_000;

const SERVICES: [&str; 8] =
    ["checkout", "cart", "payment", "shipping", "frontend", "catalog", "currency", "email"];
const REGIONS: [&str; 4] = ["eu-west-1", "eu-north-1", "us-east-1", "ap-south-1"];
const ROUTES: [&str; 5] = ["/api/cart", "/api/checkout", "/api/product", "/healthz", "/api/ship"];

/// One request's body.
pub struct Body {
    /// The bytes as decoders get them.
    pub bytes: Vec<u8>,
    /// How many records they hold.
    pub record_count: usize,
}

/// SplitMix64: small, seeded, and good enough to vary text.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[usize::try_from(self.below(words.len() as u64)).expect("an index")]
    }
}

/// Line protocol as an agent sends it: about 308 bytes a line, 10 tags and 8 fields.
pub fn lines(record_count: usize) -> Body {
    let mut random = Random(1);
    let mut text = String::new();
    for record in 0..record_count {
        let time_ns = FIRST_NS + i64::try_from(record).expect("few records") * 1_000_000;
        let random = &mut random;
        write!(
            text,
            "http_server,service={service},host=node-{host:02},region={region},env=production,version=2.{minor}.1,\
             route={route},method=GET,status={status},pod={service}-{pod:08x},tenant_tier=gold \
             duration_ms={ms}.{us:03},request_bytes={sent}i,response_bytes={received}i,cpu={cpu},\
             queue_depth={depth}i,retries=0i,cache_hit={hit},peer=\"10.0.{a}.{b}\" {time_ns}\n",
            service = random.pick(&SERVICES),
            host = random.below(24),
            region = random.pick(&REGIONS),
            minor = random.below(12),
            route = random.pick(&ROUTES),
            status = 200 + random.below(4),
            pod = random.next() as u32,
            ms = random.below(900),
            us = random.below(1_000),
            sent = random.below(60_000),
            received = random.below(200_000),
            cpu = random.below(10_000) as f64 / 10_000.0,
            depth = random.below(64),
            hit = random.below(2) == 1,
            a = random.below(256),
            b = random.below(256),
        )
        .expect("text is written to memory");
    }
    Body { bytes: text.into_bytes(), record_count }
}
