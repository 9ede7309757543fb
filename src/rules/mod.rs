//! Rules: how suspicious is a message, and why? Pure and synchronous.

mod checks;
mod evidence;
mod literal;
mod meta;
mod parse;
mod rule;
mod score;
mod set;
mod target;
mod yaml;

pub use rule::Rule;
pub use score::{Hit, Score};
pub use set::RuleSet;
