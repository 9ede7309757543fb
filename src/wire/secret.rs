//! Values that must not be told: passwords, authentication exchanges, keys.
//!
//! Redaction is a property of the type, so that a `?value` in a log line or a derived `Debug` around it cannot leak.
//! It does not wipe memory.

use std::fmt;

/// A value whose `Debug` says only that it is there. It has no `Display`.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Takes `value` into hiding.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value, for the one place that has to send or compare it.
    pub const fn reveal(&self) -> &T {
        &self.0
    }

    /// The value itself.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl<T> From<T> for Secret<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn nothing_of_the_value_is_shown() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "Secret(..) Some(Secret(..))");
        assert_eq!(*secret.reveal(), "hunter2");
    }
}
