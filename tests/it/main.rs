//! One integration binary. Each module says what it shows; `kit` holds what they share.

mod custody;
mod kit;
mod review;
mod tidy;
mod transcript;
