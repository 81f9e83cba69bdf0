//! How many shards each summarizer has.

use uuid::Uuid;

/// What a summarizer has beside its share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Share {
    /// Its share.
    Right,
    /// So many more.
    Over(usize),
    /// So many fewer.
    Under(usize),
}

/// `members` are all summarizers, in order. Shares differ by one at most, and the first ones have
/// the greater; so a member that comes or goes changes each share by what it takes or leaves.
pub(super) fn of(shards: usize, members: &[Uuid], member: Uuid, owned: usize) -> Share {
    let count = members.len().max(1);
    let at = members.iter().position(|of| *of == member).unwrap_or(count);
    let share = shards / count + usize::from(at < shards % count);
    match owned.cmp(&share) {
        std::cmp::Ordering::Equal => Share::Right,
        std::cmp::Ordering::Greater => Share::Over(owned - share),
        std::cmp::Ordering::Less => Share::Under(share - owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMBERS: [Uuid; 3] = [
        Uuid::from_bytes([1; 16]),
        Uuid::from_bytes([2; 16]),
        Uuid::from_bytes([3; 16]),
    ];

    #[test]
    fn shares_are_even() {
        let share = |members: &[Uuid], member| match of(64, members, member, 0) {
            Share::Under(share) => share,
            other => panic!("{other:?}"),
        };
        assert_eq!(share(&MEMBERS[..1], MEMBERS[0]), 64);
        assert_eq!(MEMBERS.map(|member| share(&MEMBERS, member)), [22, 21, 21]);
        let [a, b, _] = MEMBERS;
        assert_eq!([share(&[a, b], a), share(&[a, b], b)], [32, 32]);
    }

    #[test]
    fn what_is_over_or_under() {
        let [a, b, _] = MEMBERS;
        let check = |owned, expected| assert_eq!(of(64, &[a, b], a, owned), expected, "{owned}");
        check(64, Share::Over(32));
        check(32, Share::Right);
        check(30, Share::Under(2));
    }

    #[test]
    fn more_members_than_shards() {
        assert_eq!(of(2, &MEMBERS, MEMBERS[2], 0), Share::Right);
        assert_eq!(of(2, &MEMBERS, MEMBERS[1], 0), Share::Under(1));
    }
}
