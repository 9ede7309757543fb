//! The `gatepost` binary: parse the command line, call the library, end with its status; nothing else.

use std::process::ExitCode;

use clap::Parser;
use gatepost::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}
