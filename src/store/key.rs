//! The secret that authenticates this site's own stamps.

use std::fmt;

/// 32 secret octets, made once per store. `Debug` does not show them.
#[derive(Clone)]
pub struct StampKey([u8; 32]);

impl StampKey {
    /// The octets.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for StampKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StampKey(secret)")
    }
}
