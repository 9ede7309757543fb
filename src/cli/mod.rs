//! What can be asked on the command line: one file per subcommand.
//!
//! Exit status everywhere: 0 done, 1 something failed, 2 usage or configuration.

pub mod run;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A protocol-aware spam firewall proxy for SMTP, POP3 and IMAP.
#[derive(Debug, Parser)]
#[command(name = "gatepost", version, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway.
    Run(run::Args),
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
        }
    }
}
