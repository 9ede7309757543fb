//! What can be asked on the command line, one file per subcommand.

pub mod quarantine;
