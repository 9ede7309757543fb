//! How many files may be open: every connection is one.
//!
//! The system gives a process a soft limit, often 1024, and a hard limit up to which it may raise the soft one itself.

use std::io;

use rlimit::Resource;

/// Descriptors of one session: the client's socket and the upstream's.
const PER_SESSION: u64 = 2;
/// Descriptors beside those of sessions: doors, the store, the runtime, a spool file now and then.
const BESIDES: u64 = 64;

/// How many descriptors this many sessions need, about.
pub fn needed(sessions: u64) -> u64 {
    sessions.saturating_mul(PER_SESSION).saturating_add(BESIDES)
}

/// How many the system lets us have at most.
pub fn hard_limit() -> io::Result<u64> {
    Resource::NOFILE.get_hard()
}

/// Raises the soft limit to the hard one; how many may be open now.
pub fn raise() -> io::Result<u64> {
    rlimit::increase_nofile_limit(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_raised_to_the_hard_one() {
        let hard = hard_limit().unwrap();
        assert_eq!(raise().unwrap(), hard);
        assert_eq!(Resource::NOFILE.get_soft().unwrap(), hard);
    }

    #[test]
    fn a_session_needs_two() {
        assert_eq!((needed(9_000), needed(u64::MAX)), (18_064, u64::MAX));
    }
}
