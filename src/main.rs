//! The `homing` command: subcommands, thin. What they do stands in `commands`.

use std::process::ExitCode;

mod commands;

/// Thousands of small connections among short-lived large futures: the allocator of the C
/// library keeps three times their size.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    commands::run().await
}
