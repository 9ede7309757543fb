//! The texts that rules and classifiers read.
use super::Message;
/// The views.
#[derive(Clone, Debug, Default)]
pub struct Views {}
impl Views {
    pub(super) fn of(_message: &Message) -> Self {
        Self::default()
    }
}
