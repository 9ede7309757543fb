//! What a message is: the immutable bytes and what we understand of them.
//!
//! Total: a broken message is a message plus [`Defect`]s. Nothing here waits, logs, counts or fails.

mod envelope;

pub use envelope::{Envelope, Recipient};
