//! Rules: how suspicious is a message, and why? Pure and synchronous.

mod score;

pub use score::{Hit, Score};
