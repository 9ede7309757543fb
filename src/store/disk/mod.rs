//! stub
/// d
pub trait Disk: Send + Sync + std::fmt::Debug {}
/// r
#[derive(Debug)]
pub struct RealDisk;
impl Disk for RealDisk {}
