//! How bytes get here and there: streams (plain or TLS), upstream connections, the shared byte budget.
//!
//! Knows sockets and TLS, and no mail protocol: what must be said before TLS may begin is the session's affair.

mod budget;
pub mod descriptors;
mod stream;
mod tls;
mod upstream;

pub use budget::{Budget, Share};
pub use stream::{Stream, Transport};
pub use tls::{
    CertificateFault, Certificates, ClientTls, RootsFault, ServerTls, TlsFacts, UpgradeError, Verify,
};
pub use upstream::{ConnectError, Dial, Upstream, UpstreamTls};
