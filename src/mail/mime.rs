//! The tree of MIME parts.
use super::{defect::Defects, header::Head};
use bytes::Bytes;
/// A part.
#[derive(Clone, Debug)]
pub struct Part {}
pub(super) fn read(_bytes: &Bytes, _head: &Head, _defects: &mut Defects) -> Vec<Part> {
    Vec::new()
}
