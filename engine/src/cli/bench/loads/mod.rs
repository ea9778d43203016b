//! Loads like those of real senders: every id, time, duration and value is drawn anew for each record.
//!
//! The bodies of `body` repeat every few requests and count their ids up, which is kinder to a server than life. Here one
//! seed tells everything that is sent: request `number` holds the same bytes in every run, whatever connection sends
//! it. `events` is E and E0, `spans` is S, `lines` is L.

mod events;
mod lines;
mod spans;

use self::lines::Walks;
use super::body::Load;
use crate::cli::demo::random::{Random, mix};

/// Between two records of E, in nanoseconds.
const RECORD_NS: u64 = 1_000_000;

/// Draws the requests of one load.
#[derive(Debug)]
pub struct Generator {
    load: Load,
    batch: u64,
    seed: u64,
    from_ns: u64,
    /// Where the values of L are by now: its requests are drawn in their order.
    walks: Walks,
}

impl Generator {
    /// Draws requests of `batch` records of E, E0, S or L, told by `seed`, whose first record is of `from_ns`.
    pub fn new(load: Load, batch: u64, seed: u64, from_ns: u64) -> Self {
        Self { load, batch, seed, from_ns, walks: Walks::new(seed) }
    }

    /// Returns the body of request `number`.
    pub fn request(&mut self, number: u64) -> Vec<u8> {
        let mut random = Random::new(mix(self.seed) ^ mix(number.wrapping_add(1)));
        let first = number * self.batch;
        match self.load {
            Load::S => spans::request(first, self.batch, self.from_ns, &mut random),
            Load::L => lines::request(first, self.batch, self.from_ns, &mut self.walks, &mut random),
            load => {
                events::request(load == Load::E, self.batch, self.from_ns + first * RECORD_NS, &mut random)
            }
        }
    }
}

/// A number from 0 to `count` − 2: a few are very common, the tail is long.
fn skewed(random: &mut Random, count: u64) -> u64 {
    ((count as f64).powf(random.unit()) as u64).saturating_sub(1)
}

/// One of `words`, skewed.
fn skewed_of<'a>(random: &mut Random, words: &[&'a str]) -> &'a str {
    words[skewed(random, words.len() as u64) as usize]
}

/// A log-normal number: its logarithm has this mean and deviation.
fn log_normal(random: &mut Random, mean: f64, deviation: f64) -> f64 {
    let radius = (-2.0 * (1.0 - random.unit()).ln()).sqrt();
    let normal = radius * (std::f64::consts::TAU * random.unit()).cos();
    (mean + deviation * normal).exp()
}

/// Text without the cost of formatting: the generator is to stay out of the server's way.
trait Text {
    fn text(&mut self, text: &str);
    fn number(&mut self, number: u64);
    fn padded(&mut self, number: u64, width: usize);
    fn hex(&mut self, bits: u64);
}

impl Text for Vec<u8> {
    fn text(&mut self, text: &str) {
        self.extend_from_slice(text.as_bytes());
    }

    fn number(&mut self, number: u64) {
        let width = number.checked_ilog10().unwrap_or(0) as usize + 1;
        self.padded(number, width);
    }

    fn padded(&mut self, mut number: u64, width: usize) {
        let from = self.len();
        self.resize(from + width, b'0');
        for digit in self[from..].iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
    }

    fn hex(&mut self, bits: u64) {
        self.extend((0..16).map(|index| b"0123456789abcdef"[(bits >> (60 - 4 * index) & 15) as usize]));
    }
}

#[cfg(test)]
mod tests;
