//! Which names use much again and again.
//!
//! A machine that builds or tests software has other processes at the top with each look, whose
//! names never come back. A name that does is worth a label before one that may not.

use std::collections::HashMap;

use super::super::readings::Lasts;

/// So many looks, of the last [`LOOKS_REMEMBERED`], make a name a regular.
const LOOKS_NEEDED: usize = 3;
/// Five minutes.
const LOOKS_REMEMBERED: u64 = 30;

/// The names of the last looks.
#[derive(Debug, Default)]
pub(super) struct Regulars {
    look: u64,
    /// In which looks each was seen last, the newest first.
    seen: HashMap<Vec<u8>, [u64; LOOKS_NEEDED]>,
}

impl Regulars {
    /// What is seen now.
    pub(super) fn look<'n>(&mut self, names: impl Iterator<Item = &'n [u8]>) {
        // The first is beyond what is remembered, so that 0 is no look.
        self.look = self.look.max(LOOKS_REMEMBERED) + 1;
        for name in names {
            let looks = self.seen.entry(name.to_vec()).or_default();
            looks.rotate_right(1);
            looks[0] = self.look;
        }
        let look = self.look;
        self.seen.retain(|_, looks| is_remembered(look, looks[0]));
    }

    pub(super) fn lasts(&self, name: &[u8]) -> Lasts {
        let looks = self.seen.get(name).copied().unwrap_or_default();
        match is_remembered(self.look, looks[LOOKS_NEEDED - 1]) {
            true => Lasts::Long,
            false => Lasts::MaybeNot,
        }
    }
}

fn is_remembered(now: u64, look: u64) -> bool {
    look + LOOKS_REMEMBERED > now
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_come_back() {
        let mut regulars = Regulars::default();
        let mut look = |names: &[&str]| {
            regulars.look(names.iter().map(|name| name.as_bytes()));
            let lasts =
                ["server", "job"].map(|name| regulars.lasts(name.as_bytes()) == Lasts::Long);
            (lasts, regulars.seen.len())
        };
        assert_eq!(look(&["server"]), ([false, false], 1));
        assert_eq!(look(&["server", "job"]), ([false, false], 2));
        assert_eq!(look(&["server", "job"]), ([true, false], 2));
        for _ in 0..29 {
            assert_eq!(look(&["server"]).0, [true, false]);
        }
        // It was seen three times, but not lately; and it is forgotten.
        assert_eq!(look(&["server", "job"]), ([true, false], 2));
        for _ in 0..30 {
            look(&["server"]);
        }
        assert_eq!(look(&["server"]), ([true, false], 1));
        let names: Vec<String> = (0..1_000).map(|at| format!("job-{at}")).collect();
        for name in &names {
            look(&[name]);
        }
        assert_eq!(look(&[]).1, 29);
    }
}
