//! One integration binary. Each module says what it shows; `kit` holds what they share.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod custody;
mod kit;
mod review;
mod tidy;
mod transcript;
