//! The simulation: seeds in, violations out.
//!
//! A world of devices, links that delay and cut, a broker that crashes between any two steps
//! and a log in memory, around the real protocol core. Everything that happens is drawn from
//! one generator, so that a seed repeats it:
//!
//! ```text
//!   SIMULATION_SEED=42   cargo nextest run -E 'binary(simulation)'
//!   SIMULATION_SEEDS=9999cargo nextest run -E 'binary(simulation)'   (how many)
//! ```

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod connection;
mod device;
mod invariants;
mod link;
mod log;
mod server;
mod wire;
mod world;

use homing::domain::envelope::ContentLimits;
use world::World;

const LIMITS: ContentLimits = ContentLimits {
    bytes_max: 4096,
    mentions_max: 0,
    attachments_max: 0,
};

/// How many worlds a test run makes.
const SEEDS: u64 = 1500;
/// How many things happen in one of them before all is healed.
const STEPS: usize = 600;

#[test]
fn no_world_loses_skips_or_reorders_a_message() {
    let seeds = match (setting("SIMULATION_SEED"), setting("SIMULATION_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, seeds) => 0..seeds.unwrap_or(SEEDS),
    };
    let violations: Vec<_> = seeds.filter_map(|seed| run(seed).err()).collect();
    let total = violations.len();
    let shown: Vec<_> = violations.iter().take(5).collect();
    assert!(violations.is_empty(), "{total} worlds failed:\n{shown:#?}");
}

fn run(seed: u64) -> Result<(), String> {
    let mut world = World::new(seed);
    for step in 0..STEPS {
        let happened = world.step();
        happened.map_err(|what| format!("SIMULATION_SEED={seed}, step {step}: {what}"))?;
    }
    let healed = world.heal();
    healed.map_err(|what| format!("SIMULATION_SEED={seed}, healed: {what}"))
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long it runs is not a setting of the broker"
)]
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
