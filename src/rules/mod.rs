//! Rules: how suspicious is a message, and why? Pure and synchronous.

mod rule;
mod score;
mod set;

pub use rule::Rule;
pub use score::{Hit, Score};
pub use set::RuleSet;
