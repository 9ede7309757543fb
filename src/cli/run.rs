//! `gatepost run`: the gateway, from a configuration file to the drain.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use crate::{
    app::{App, StartError},
    config::{Config, LogLevel},
    fault::Fault,
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
        Err(error) => {
            anstream::eprintln!("gatepost: the system gives no threads: {error}");
            return ExitCode::from(super::FAILED);
        }
    };
    runtime.block_on(async {
        match App::build(&config) {
            Ok(app) => match app.run().await {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    anstream::eprintln!("gatepost: {error}");
                    ExitCode::from(super::FAILED)
                }
            },
            Err(StartError::Faults(faults)) => refuse(&faults),
            Err(error) => {
                anstream::eprintln!("gatepost: {error}");
                ExitCode::from(super::FAILED)
            }
        }
    })
}

/// The configuration, or everything that is wrong with it. Warnings are told on standard error.
pub fn load(named: Option<&Path>) -> Result<Config, Vec<Fault>> {
    let path = Config::find(named).map_err(|fault| vec![fault])?;
    let (config, warnings) = Config::load(&path).map_err(|fault| vec![fault])?.sound()?;
    for warning in &warnings {
        anstream::eprintln!("warning: {warning}");
    }
    Ok(config)
}

/// Tells every fault; the exit status for them.
pub fn refuse(faults: &[Fault]) -> ExitCode {
    for fault in faults {
        anstream::eprintln!("{fault}");
    }
    ExitCode::from(super::UNSOUND)
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
