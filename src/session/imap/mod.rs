//! -
pub mod relay;
