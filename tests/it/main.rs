//! One integration binary. Each module says what it shows; `kit` holds what they share.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod custody;
mod docs;
mod gateway;
mod kit;
mod smtp;
mod tidy;
mod tls;
mod transcript;
