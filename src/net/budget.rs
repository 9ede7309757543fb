//! The shared byte budget: how much mail all sessions together may hold in memory.
//!
//! A taker that gets nothing spills to disk instead of waiting, so that slow clients cannot starve others.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// A number of octets shared by everyone who holds a clone.
#[derive(Clone, Debug)]
pub struct Budget {
    left: Arc<AtomicU64>,
}

/// Octets taken from a [`Budget`]; they go back when it is dropped.
#[derive(Debug)]
pub struct Share {
    budget: Budget,
    octets: u64,
}

impl Budget {
    /// A budget of `octets`.
    pub fn new(octets: u64) -> Self {
        Self { left: Arc::new(AtomicU64::new(octets)) }
    }

    /// An empty share, to be grown.
    pub fn share(&self) -> Share {
        Share { budget: self.clone(), octets: 0 }
    }

    /// Octets nobody holds now.
    pub fn left(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }

    fn take(&self, octets: u64) -> bool {
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(octets)).is_ok()
    }
}

impl Share {
    /// Grows the share to `octets` in all. False: the budget has not that much left, and nothing changed.
    pub fn grow_to(&mut self, octets: u64) -> bool {
        let more = octets.saturating_sub(self.octets);
        if more > 0 && !self.budget.take(more) {
            return false;
        }
        self.octets += more;
        true
    }

    /// Gives everything back.
    pub fn release(&mut self) {
        self.budget.left.fetch_add(self.octets, Ordering::Relaxed);
        self.octets = 0;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::Budget;

    #[test]
    fn what_is_taken_comes_back() {
        let budget = Budget::new(100);
        let mut one = budget.share();
        let mut two = budget.share();
        assert!(one.grow_to(60) && !two.grow_to(41) && two.grow_to(40));
        assert_eq!(budget.left(), 0);
        assert!(one.grow_to(10), "a share never shrinks by growing");
        drop(one);
        assert_eq!(budget.left(), 60);
        two.release();
        assert_eq!(budget.left(), 100);
    }
}
