//! Whatever happens on the way, devices end up showing what Postgres holds.
//!
//! Model devices keep the cache of the SDK, write and set things themselves, and show that at once.
//! Connections break, events and acknowledgements are lost, repeated and reordered, the same news
//! comes over MQTT, REST and streams of events, devices sleep, people come, go and fall silent,
//! messages are edited, retracted, reacted to, and expire. Then all is quiet, every device asks
//! once for what differs, and is compared with what the tables say, counted anew. In every other
//! run it reads nothing but what it is told to.

mod change;
mod client;
mod events;
mod live;
mod settle;
mod stored;
mod truth;
mod world;

use rand::{SeedableRng as _, rngs::StdRng};
use sqlx::PgPool;

use world::World;

/// Steps of one run.
const STEPS: usize = 150;

/// `CONVERGENCE_SEED=7` repeats one run, `CONVERGENCE_RUNS=50` makes more of them.
#[expect(
    clippy::disallowed_methods,
    reason = "how much is run is said to the test, not to the product"
)]
fn seeds() -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match number("CONVERGENCE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("CONVERGENCE_RUNS").unwrap_or(6),
    }
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn every_device_ends_up_with_what_is_stored(pool: PgPool) {
    for seed in seeds() {
        eprintln!("seed {seed}");
        let mut world = World::new(&pool, StdRng::seed_from_u64(seed), seed).await;
        for _ in 0..STEPS {
            world.step().await;
        }
        world.settle().await;
        world.check(&pool).await;
        world.end().await;
    }
}
