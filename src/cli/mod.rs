//! What can be asked on the command line: one file per subcommand.
//!
//! Exit status everywhere: 0 done, 1 something failed, 2 usage or configuration.

pub mod check;
pub mod quarantine;
mod release;
pub mod run;
pub mod scan;

use std::{path::Path, process::ExitCode, sync::Arc};

use clap::{Parser, Subcommand};

use self::release::SmtpDelivery;
use crate::{
    app,
    config::{self, Config},
    fault::Fault,
    rules::RuleSet,
    verdict::Thresholds,
};

/// A protocol-aware spam firewall proxy for SMTP, POP3 and IMAP.
#[derive(Debug, Parser)]
#[command(name = "gatepost", version, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway
    Run(run::Args),
    /// Say everything that is wrong with the configuration and the rules
    Check(check::Args),
    /// Judge files, folders, mbox files, Maildirs or standard input
    Scan(scan::ScanArgs),
    /// Look after held mail
    Quarantine(quarantine::QuarantineArgs),
}

/// Something failed.
pub const FAILED: u8 = 1;
/// Usage or configuration is wrong.
pub const UNSOUND: u8 = 2;

impl Cli {
    /// Does what was asked.
    pub fn run(self) -> ExitCode {
        match self.command {
            Command::Run(args) => run::run(&args),
            Command::Check(args) => check::run(&args, check_rules),
            Command::Scan(args) => scan(&args),
            Command::Quarantine(args) => look_after(&args),
        }
    }
}

/// How many rules there are, if all are sound and do to their own examples what they say.
fn check_rules(rules: &config::Rules) -> Result<usize, Vec<Fault>> {
    let rules = app::load_rules(rules)?;
    let faults = rules.examples();
    if faults.is_empty() { Ok(rules.rules().len()) } else { Err(faults) }
}

fn look_after(args: &quarantine::QuarantineArgs) -> ExitCode {
    let config = match load(args.config.as_deref()) {
        Ok(config) => config,
        Err(faults) => return refuse(&faults),
    };
    match app::open_store(&config.store) {
        Ok(store) => {
            let via = match &args.command {
                quarantine::QuarantineCommand::Release { via, .. } => via.as_deref(),
                _ => None,
            };
            ExitCode::from(quarantine::run(args, &store, &mut SmtpDelivery::new(&config, via)))
        }
        Err(error) => fail(&error),
    }
}

/// Scans with the rules and thresholds of the configuration that is named or lies where one is looked for, and with
/// the built-in ones where there is none.
fn scan(args: &scan::ScanArgs) -> ExitCode {
    let (rules, thresholds) = match Config::find(args.config.as_deref()) {
        Err(_) => (RuleSet::built_in(), Thresholds::default()),
        Ok(path) => match judging(&path) {
            Ok(judging) => judging,
            Err(faults) => return refuse(&faults),
        },
    };
    scan::run(args, Arc::new(rules), thresholds)
}

/// The rules and the default policy's thresholds of a configuration. What it says of ports, certificates and the
/// store is not looked at: who scans need not be who runs the gateway.
fn judging(path: &Path) -> Result<(RuleSet, Thresholds), Vec<Fault>> {
    let config = Config::load_unseen(path).map_err(|fault| vec![fault])?.sound()?.0;
    let policy = config.policies.iter().find(|policy| policy.set.name == "default");
    let thresholds = policy.map_or_else(Thresholds::default, |policy| policy.set.thresholds);
    Ok((app::load_rules(&config.rules)?, thresholds))
}

/// The configuration, or everything that is wrong with it. Warnings are told on standard error.
fn load(named: Option<&Path>) -> Result<Config, Vec<Fault>> {
    let path = Config::find(named).map_err(|fault| vec![fault])?;
    let (config, warnings) = Config::load(&path).map_err(|fault| vec![fault])?.sound()?;
    for warning in &warnings {
        anstream::eprintln!("warning: {warning}");
    }
    Ok(config)
}

/// Tells every fault; the exit status for them.
fn refuse(faults: &[Fault]) -> ExitCode {
    for fault in faults {
        anstream::eprintln!("{fault}");
    }
    ExitCode::from(UNSOUND)
}

/// Tells what failed; the exit status for it.
fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    anstream::eprintln!("gatepost: {error}");
    ExitCode::from(FAILED)
}
