//! One integration binary. Each module says what it shows; `kit` holds what they share.

#![allow(clippy::unwrap_used)] // clippy.toml lets off what stands in a test function, not what tests share.

mod custody;
mod gateway;
mod kit;
mod review;
mod tidy;
mod tls;
mod transcript;
