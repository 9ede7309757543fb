//! What a message is: the immutable bytes and what we understand of them.
//!
//! Total: a broken message is a message plus [`Defect`]s. Nothing here waits, logs, counts or fails.

mod address;
mod charset;
mod content;
mod defect;
mod encoded_word;
mod encoding;
mod envelope;
mod header;
mod html;
pub mod limits;
mod message;
mod mime;
mod views;

pub use address::Address;
pub use defect::{Defect, DefectKind};
pub use encoding::Encoding;
pub use envelope::{Envelope, Recipient};
pub use header::Header;
pub(crate) use header::{Field, Fields};
pub use message::Message;
pub use mime::{Part, Reading};
pub use views::Views;
pub(crate) use views::defect_names;
