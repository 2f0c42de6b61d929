//! The `homing` command: subcommands, thin. What they do stands in `commands`.

use std::process::ExitCode;

mod commands;

#[tokio::main]
async fn main() -> ExitCode {
    commands::run().await
}
