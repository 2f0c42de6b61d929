//! How log lines look and which are written.
//!
//! All of them go to standard error: standard output belongs to the commands.

use std::io::{self, IsTerminal as _};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    EnvFilter, Layer as _, Registry, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::config::{LogConfig, LogFormat};

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error(
        "log.level {level:?}: {problem}; use error, warn, info, debug, trace or off, or directives as in \"info,homing::broker=debug\""
    )]
    Level { level: String, problem: String },
    #[error("logging was set up before")]
    AlreadySet(#[source] tracing_subscriber::util::TryInitError),
}

/// Sets up the log of the process; once.
///
/// # Errors
///
/// If the level is not understood, or it was done before.
pub fn init(config: &LogConfig) -> Result<(), LogError> {
    let filter = filter(&config.level)?;
    let is_text = match config.format {
        LogFormat::Text => true,
        LogFormat::Json => false,
        LogFormat::Auto => io::stderr().is_terminal(),
    };
    let lines = fmt::layer().with_writer(io::stderr);
    let lines = if is_text {
        lines.with_ansi(io::stderr().is_terminal()).boxed()
    } else {
        lines
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .boxed()
    };
    Registry::default()
        .with(filter)
        .with(lines)
        .try_init()
        .map_err(LogError::AlreadySet)
}

fn filter(level: &str) -> Result<EnvFilter, LogError> {
    let refused = |problem| LogError::Level {
        level: level.to_owned(),
        problem,
    };
    // The parser would take an unknown word for a module, and log all of it.
    let words: Vec<&str> = level.split(',').map(str::trim).collect();
    let is_known = |word: &str| {
        word.contains('=') || (!word.is_empty() && word.parse::<LevelFilter>().is_ok())
    };
    let unknown = words.iter().find(|word| !is_known(word));
    if let Some(word) = unknown {
        return Err(refused(format!("{word:?} is no level")));
    }
    EnvFilter::builder()
        .parse(words.join(","))
        .map_err(|error| refused(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_directives_are_understood() {
        for level in [
            "info",
            "warn,homing=debug",
            "info, homing::broker=trace",
            "off",
        ] {
            filter(level).unwrap();
        }
    }

    #[test]
    fn a_misspelt_level_is_refused_by_name() {
        for level in ["", "loud", "info,debgu", "homing=loud"] {
            let error = filter(level).unwrap_err().to_string();
            assert!(
                error.contains(level) && error.contains("use error, warn"),
                "{error}"
            );
        }
    }
}
