//! L: what an agent on each of 4,000 hosts measures, as line protocol: values that walk, one time a tick.

use super::Text as _;
use crate::cli::demo::random::{Random, mix};

const HOSTS: u64 = 4_000;
const TICK_NS: u64 = 10_000_000_000;
const FIELDS: usize = 8;

/// Their names, and the names of the fields that are theirs alone: three doubles, then three integers.
const MEASUREMENTS: [(&str, [&str; 6]); 5] = [
    ("cpu", ["usage_user", "usage_system", "usage_iowait", "interrupts", "switches", "forks"]),
    ("mem", ["used_percent", "cached_percent", "swap_percent", "faults", "dirty_pages", "slab_pages"]),
    ("disk", ["await_ms", "util_percent", "queue_size", "reads", "writes", "merged"]),
    ("net", ["rx_mbit", "tx_mbit", "rtt_ms", "packets_in", "packets_out", "drops"]),
    ("proc", ["load1", "load5", "load15", "running", "blocked", "zombies"]),
];
/// Fields of every measurement: a double in one, an integer in the next.
const SHARED: [&str; 2] = ["total", "active"];

/// Where every value is by now.
#[derive(Debug)]
pub struct Walks {
    seed: u64,
    hundredths: Vec<[u64; FIELDS]>,
}

impl Walks {
    pub fn new(seed: u64) -> Self {
        Self { seed, hundredths: Vec::new() }
    }

    /// Takes every value of one host and measurement a step further.
    fn step(&mut self, series: u64, random: &mut Random) -> [u64; FIELDS] {
        if self.hundredths.is_empty() {
            let mut random = Random::new(mix(self.seed));
            let count = HOSTS as usize * MEASUREMENTS.len();
            self.hundredths = (0..count).map(|_| std::array::from_fn(|_| random.below(10_000_000))).collect();
        }
        let values = &mut self.hundredths[series as usize];
        for value in values.iter_mut() {
            *value = (*value + random.below(2_001)).saturating_sub(1_000);
        }
        *values
    }
}

/// One request of `batch` lines, the first of them number `first` of the load.
pub fn request(first: u64, batch: u64, from_ns: u64, walks: &mut Walks, random: &mut Random) -> Vec<u8> {
    let mut out = Vec::with_capacity(batch as usize * 320);
    let tick_lines = HOSTS * MEASUREMENTS.len() as u64;
    for number in first..first + batch {
        let series = number % tick_lines;
        let values = walks.step(series, random);
        line(&mut out, series, &values, from_ns + number / tick_lines * TICK_NS);
    }
    out
}

fn line(out: &mut Vec<u8>, series: u64, values: &[u64; FIELDS], time_ns: u64) {
    let measurements = MEASUREMENTS.len() as u64;
    let (host, measurement) = (series / measurements, (series % measurements) as usize);
    let (name, own) = &MEASUREMENTS[measurement];
    let of_host = mix(host);
    out.text(name);
    out.text(",host=node.a-");
    out.padded(host, 4);
    out.text(",region=");
    out.text(["eu-central-1", "us-east-1", "us-west-2", "ap-south-1"][(of_host % 4) as usize]);
    out.text(",zone=az-");
    out.text(["a", "b", "c"][(of_host / 4 % 3) as usize]);
    out.text(",rack=rack-");
    out.padded(of_host / 16 % 100, 2);
    out.text(",os=debian-13.2,arch=");
    out.text(["amd64", "arm64"][(of_host / 2_048 % 2) as usize]);
    out.text(",team=team-");
    out.text(["core", "data", "edge", "shop"][(of_host / 8_192 % 4) as usize]);
    out.text(",service=service-");
    out.padded(of_host / 65_536 % 50, 2);
    out.text(",env=production,cluster=main-eu-1");
    for (field, value) in values.iter().enumerate() {
        out.text(if field == 0 { " " } else { "," });
        // The shared names change their type from one measurement to the next.
        let (name, is_double) = match field {
            0 | 1 => (SHARED[field], (field + measurement) % 2 == 0),
            _ => (own[field - 2], field < 5),
        };
        out.text(name);
        out.text("=");
        if is_double {
            out.number(value / 100);
            out.text(".");
            out.padded(value % 100, 2);
        } else {
            out.number(*value / 100);
            out.text("i");
        }
    }
    out.text(" ");
    out.number(time_ns);
    out.text("\n");
}
