//! Postgres: the binaries of the embedded one, or the server that is named.

use homing::config::Config;

use super::Check;

pub(super) async fn check(settings: &Config, is_running: bool) -> Vec<Check> {
    let _ = (settings, is_running);
    Vec::new()
}
