//! What each eviction strategy saves over made-up traces, beside quick_cache and a plain LRU; docs/eviction.md has the
//! tables. Every run gives the same figures. Give a part of a trace's name to see that one only.

#![expect(clippy::expect_used, reason = "a bench that cannot be set up has nothing to measure")]

#[path = "eviction/policies.rs"]
mod policies;
#[path = "eviction/traces.rs"]
mod traces;

use policies::{NAMES, play};
use traces::Costs;

const REQUESTS: usize = 200_000;
const BUDGETS: [usize; 3] = [1 << 20, 4 << 20, 16 << 20];

fn main() {
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with("--")).unwrap_or_default();
    let (mut rows, mut first, mut worst) = (0, 0, 0.0f64);
    for trace in traces::all(REQUESTS).iter().filter(|trace| trace.name.contains(&filter)) {
        println!("\n### {}\n\nHits / hits by bytes / upstream time saved, in %.\n", trace.name);
        println!("| cost | budget | {} |\n|{}", NAMES.join(" | "), " --- |".repeat(NAMES.len() + 2));
        let most = trace.requests.iter().max().map_or(0, |most| *most as usize + 1);
        for costs in Costs::ALL {
            let outcomes = costs.outcomes(most);
            for budget in BUDGETS {
                let row = NAMES.map(|name| play(name, budget, trace, &outcomes));
                let best = row.iter().map(|saved| saved.time).fold(0.0, f64::max);
                let cells = row.map(|saved| {
                    let mark = if saved.time >= best { "**" } else { "" };
                    let [hits, bytes, time] = [saved.requests, saved.bytes, saved.time].map(|share| share * 100.0);
                    format!("{hits:.1} / {bytes:.1} / {mark}{time:.2}{mark}")
                });
                println!("| {costs:?} | {} MiB | {} |", budget >> 20, cells.join(" | "));
                rows += 1;
                first += usize::from(row[0].time >= best);
                worst = worst.max((best - row[0].time) * 100.0);
            }
        }
    }
    println!(
        "\n{} saves the most time in {first} of {rows} rows, and {worst:.2} points less than the best at worst.",
        NAMES[0]
    );
}
