//! SMTP: commands of the client, replies of the upstream, the capability list between them (RFC 5321).

pub mod command;
pub mod extension;
pub mod reply;

pub use command::{Address, Command, CommandFault, Path, PathCommand};
pub use extension::{Extensions, Offer, carries_parameter};
pub use reply::{Reply, ReplyDecoder, ReplyFault};
