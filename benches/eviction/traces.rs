//! Requests to a cache, made up from a seed: which result each asks for, how large it is and what it costs upstream.

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

/// Distinct results that the requests of a trace return to.
pub const RESULTS: usize = 20_000;

#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// Bytes of its frames.
    pub size: usize,
    /// Seconds of upstream time.
    pub cost: f64,
}

pub struct Trace {
    pub name: &'static str,
    pub requests: Vec<u32>,
}

#[derive(Debug, Clone, Copy)]
pub enum Costs {
    /// Each result costs the same.
    Equal,
    /// A large result takes long, give or take a factor.
    WithSize,
    /// Whatever its size, and a few take very long (Pareto, 1.2).
    HeavyTail,
}

impl Costs {
    pub const ALL: [Self; 3] = [Self::Equal, Self::WithSize, Self::HeavyTail];

    /// Size and cost of each result: sizes are log-normal about 1.5 kB, from 100 B to 100 kB.
    pub fn outcomes(self, count: usize) -> Vec<Outcome> {
        let mut random = StdRng::seed_from_u64(11);
        let outcome = |_| {
            let size = (1500.0 * (1.5 * normal(&mut random)).exp()).clamp(100.0, 100_000.0);
            let cost = match self {
                Self::Equal => 1e-3,
                Self::WithSize => 1e-4 + size * 2e-7 * (0.7 * normal(&mut random)).exp(),
                Self::HeavyTail => (3e-4 * random.random_range(1e-9f64..1.0).powf(-1.0 / 1.2)).min(10.0),
            };
            Outcome { size: size as usize, cost }
        };
        (0..count).map(outcome).collect()
    }
}

/// Every trace, of about `length` requests each.
pub fn all(length: usize) -> Vec<Trace> {
    let zipf = |name, skew, seed| Trace { name, requests: hot_sets(length, skew, length, RESULTS, seed) };
    vec![
        zipf("zipf 0.6", 0.6, 1),
        zipf("zipf 0.8", 0.8, 2),
        zipf("zipf 1.0", 1.0, 3),
        zipf("zipf 1.2", 1.2, 4),
        Trace { name: "zipf 0.9 and one-time reads", requests: with_scans(length, false) },
        Trace { name: "zipf 0.9 and a scan again and again", requests: with_scans(length, true) },
        Trace { name: "hot set replaced 5 times", requests: hot_sets(length, 1.0, length / 5, RESULTS, 5) },
        Trace { name: "hot set drifts", requests: hot_sets(length, 1.0, length / 500, RESULTS / 1000, 6) },
    ]
}

/// Zipf requests; after every `span` of them `moved` of the results change ranks.
fn hot_sets(length: usize, skew: f64, span: usize, moved: usize, seed: u64) -> Vec<u32> {
    let mut random = StdRng::seed_from_u64(seed);
    let ranks = Ranks::new(RESULTS, skew);
    let mut results: Vec<u32> = (0..RESULTS as u32).collect();
    results.shuffle(&mut random);
    let mut requests = Vec::with_capacity(length);
    while requests.len() < length {
        if !requests.is_empty() {
            for _ in 0..moved {
                // Half of the exchanges concern the popular ones.
                let rank = if random.random() { ranks.draw(&mut random) } else { random.random_range(0..RESULTS) };
                results.swap(rank, random.random_range(0..RESULTS));
            }
        }
        requests.extend((0..span.min(length - requests.len())).map(|_| results[ranks.draw(&mut random)]));
    }
    requests
}

/// Zipf requests, and after every 8000 of them 4000 in sequence: never seen before and never again, or always the same.
fn with_scans(length: usize, again: bool) -> Vec<u32> {
    const SCAN: u32 = 4000;
    let mut random = StdRng::seed_from_u64(7);
    let ranks = Ranks::new(RESULTS / 2, 0.9);
    let first = RESULTS as u32 / 2;
    let (mut requests, mut next) = (Vec::with_capacity(length), first);
    while requests.len() < length {
        requests.extend((0..2 * SCAN).map(|_| ranks.draw(&mut random) as u32));
        requests.extend(next..next + SCAN);
        next = if again { first } else { next + SCAN };
    }
    requests
}

/// Ranks with probabilities that fall as a power of the rank.
struct Ranks(Vec<f64>);

impl Ranks {
    fn new(count: usize, skew: f64) -> Self {
        let mut sum = 0.0;
        Self(
            (1..=count)
                .map(|rank| {
                    sum += (rank as f64).powf(-skew);
                    sum
                })
                .collect(),
        )
    }

    fn draw(&self, random: &mut impl Rng) -> usize {
        let point = random.random_range(0.0..self.0[self.0.len() - 1]);
        self.0.partition_point(|sum| *sum <= point)
    }
}

/// A normal deviate (Box and Muller, 1958).
fn normal(random: &mut impl Rng) -> f64 {
    let (radius, angle): (f64, f64) = (random.random_range(1e-12..1.0), random.random());
    (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
}
