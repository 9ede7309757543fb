//! `gatepost run`: the gateway, from a configuration file to the drain.

use std::{path::PathBuf, process::ExitCode};

use super::{fail, load, refuse};
use crate::{
    app::{App, StartError},
    config::LogLevel,
    telemetry,
};

/// What `gatepost run` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration; without it ./gatepost.yaml, then /etc/gatepost/gatepost.yaml
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs until it is told to stop.
pub fn run(args: &Args) -> ExitCode {
    let config = match load(args.config.as_deref()) {
        Ok(config) => config,
        Err(faults) => return refuse(&faults),
    };
    telemetry::log_to_stderr(config.log.format, level(config.log.level));
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    runtime.block_on(async {
        match App::build(&config) {
            Ok(app) => match app.run().await {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(&error),
            },
            Err(StartError::Faults(faults)) => refuse(&faults),
            Err(error) => fail(&error),
        }
    })
}

const fn level(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    }
}
