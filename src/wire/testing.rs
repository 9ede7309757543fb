//! What every codec's tests share: the same input in every chunking must give the same result.

use std::fmt::Debug;

/// Runs `decode` on `input` whole, octet by octet and split in two at each place. All results must be equal; that
/// result is returned.
pub(crate) fn check_chunks<T: PartialEq + Debug>(input: &[u8], decode: impl Fn(&[&[u8]]) -> T) -> T {
    let whole = decode(&[input]);
    let octets: Vec<&[u8]> = input.chunks(1).collect();
    assert_eq!(decode(&octets), whole, "octet by octet: {}", input.escape_ascii());
    for at in 0..=input.len() {
        let (front, back) = input.split_at(at);
        assert_eq!(decode(&[front, back]), whole, "split at {at}: {}", input.escape_ascii());
    }
    whole
}
