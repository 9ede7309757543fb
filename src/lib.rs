//! Gatepost: a spam firewall proxy for SMTP, POP3 and IMAP.
//!
//! A **Listener** accepts a **Client** and opens its **Upstream**; a **Session** relays one protocol between
//! them; when a **Message** passes, the **Filter** gives a **Verdict**, the **Policy** turns the verdict into an
//! **Action** (SMTP) or a **Filing** (POP3, IMAP), and a **Rendition** of the message is what leaves.
//!
//! The modules stand in layer order; each may use those above it in this list, never those below.
//! `ARCHITECTURE.md` is the map, and a test holds the imports against it.

pub mod domain; // Which domains are meant?
pub mod fault; // What did the operator write wrong, where, and what helps?
pub mod limits; // How much is too much?
pub mod mail; // What is this message?
pub mod wire; // Where does an item begin and end, and what does it say?

pub mod rules; // How suspicious is it, and why?

pub mod verdict; // What do we conclude?

pub mod policy; // What do we do about it?
pub mod render; // What does the receiver see?

pub mod telemetry; // What is counted, and how do we speak?

pub mod net; // How do bytes get here and there?

pub mod store; // What must survive a restart?

pub mod filter; // Which verdict, for this message, now?

pub mod session; // How does this protocol carry it?

pub mod admin; // What does the operator see?

pub mod app; // How is it put together and run?
pub mod cli; // What can be asked on the command line?
pub mod config; // What did the operator write, and is it sound?
