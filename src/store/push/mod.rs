//! Push: tokens, jobs, and the ledger of what became of them.
//!
//! ```text
//!   outbox ──arm──▶ armed ──claim──▶ in flight ──finish──▶ done
//!                   ▲   │                │  │               │
//!                   │   └─ cancelled ────┼──┼──────────────▶│ (the ledger says why)
//!                   ├────── back-off ◀───┘  │
//!                   └── newer messages ◀────┘
//! ```
//!
//! The rules stand in the functions of `migrations/0002_push.sql`: each step is one statement
//! and one transaction, so that a crash leaves a job either before it or after it. Functions
//! take the time as `at`, in milliseconds since 1970; none is the clock of the database.

pub mod arm;
pub mod finish;
pub mod jobs;
pub mod ledger;
pub mod settings;
pub mod tokens;
pub mod upkeep;

use std::time::Duration;

use sqlx::postgres::types::PgInterval;

/// The longest duration that is handed to the database; nothing here takes longer.
const INTERVAL_MAX: Duration = Duration::from_hours(24 * 365);

/// For SQL; what is longer than [`INTERVAL_MAX`] is as long as that.
fn interval(duration: Duration) -> PgInterval {
    let microseconds = i64::try_from(duration.min(INTERVAL_MAX).as_micros());
    PgInterval {
        months: 0,
        days: 0,
        microseconds: microseconds.unwrap_or(i64::MAX),
    }
}
