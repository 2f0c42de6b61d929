//! The push simulation: a seed in, violations out.
//!
//! A thousand devices connect and vanish, acknowledge and read, mute and move to other tokens;
//! workers crash between any two steps; a provider refuses, is late, and takes notifications
//! without saying so. Around the real functions of the store, in a real Postgres; the time is
//! an argument of theirs, so that minutes pass in seconds. Everything that happens is drawn
//! from one generator:
//!
//! ```text
//!   SIMULATION_SEED=42     cargo nextest run -E 'binary(push_simulation)'
//!   SIMULATION_STEPS=5000  cargo nextest run -E 'binary(push_simulation)'   (of half a second)
//! ```

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod changes;
mod consumers;
mod invariants;
mod people;
mod provider;
mod setting_up;
mod workers;
mod world;

use homing::store::messages;
use sqlx::PgPool;

use world::World;

/// How many things happen at most before all is healed: half a second each.
const STEPS: u64 = 250;

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn no_wake_is_missed_and_none_is_too_many(pool: PgPool) {
    let seed = setting("SIMULATION_SEED").unwrap_or(1);
    let options = pool.connect_options();
    let conn = messages::connect_writer(&options).await.unwrap();
    let mut world = World::new(conn, seed).await;
    for _ in 0..setting("SIMULATION_STEPS").unwrap_or(STEPS) {
        world.step().await;
    }
    world.heal().await;
    let violations = world.violations().await;
    let shown: Vec<_> = violations.iter().take(10).collect();
    let total = violations.len();
    let told = world.summary();
    assert!(
        total == 0,
        "SIMULATION_SEED={seed}: {total} violations, {told}\n{shown:#?}"
    );
    eprintln!("{told}");
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long it runs is not a setting of the broker"
)]
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
