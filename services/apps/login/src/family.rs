//! Refresh tokens come in families: each use of a token makes the next generation of its family, and of what a thief and the
//! owner hold one is then too old, and ends the whole session for both: access tokens say of which session they are, not of which
//! family.
//!
//! ```text
//! newest ── used ──> newest of the next generation; its own generation is the last one now
//! last ── used within a minute ──> one more of the newest generation: two tabs that asked at once, an answer that got lost
//! last, later ── used ──> the session ends
//! older ── used ──> the session ends
//! ```
//! Of several of the newest generation the first that is used makes the others the last generation.

use nexushub_applib::time::Unix;

/// How long a token that was followed by another may still be used, in seconds.
pub(crate) const GRACE: Unix = 60;
/// How long a family lives after its last use, in seconds: 30 days.
pub(crate) const LIFE: Unix = 30 * 86_400;

/// What is known of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Family {
    /// The newest generation.
    pub newest: i64,
    /// Since when it is the newest.
    pub since: Unix,
    /// When it ends, unless it is used.
    pub expires: Unix,
}

/// What the use of a token means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is answered by a token of this generation.
    Next(i64),
    /// Too old: whoever holds the newest may be a thief.
    Reused,
    /// The family has ended by itself.
    Expired,
}

/// Judges the use of a token of a generation.
pub(crate) fn judge(generation: i64, family: &Family, now: Unix) -> Verdict {
    if family.expires <= now {
        return Verdict::Expired;
    }
    let young = now - family.since <= GRACE;
    match family.newest - generation {
        0 => Verdict::Next(generation + 1),
        1 if young => Verdict::Next(family.newest),
        _ => Verdict::Reused,
    }
}

impl Family {
    /// The family once a token of this generation was given out.
    pub(crate) fn after(self, generation: i64, now: Unix) -> Self {
        let since = if generation > self.newest { now } else { self.since };
        Self { newest: generation, since, expires: now + LIFE }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]
    use proptest::prelude::*;

    use super::*;

    const FAMILY: Family = Family { newest: 5, since: 1000, expires: 2000 };

    #[test]
    fn the_newest_is_followed_by_the_next_and_the_last_by_one_more_of_the_newest_for_a_minute() {
        assert_eq!(judge(5, &FAMILY, 1500), Verdict::Next(6));
        assert_eq!(judge(4, &FAMILY, 1060), Verdict::Next(5));
        assert_eq!(
            FAMILY.after(5, 1060),
            Family { expires: 1060 + LIFE, ..FAMILY },
            "the minute is not begun anew"
        );
        assert_eq!(FAMILY.after(6, 1500), Family { newest: 6, since: 1500, expires: 1500 + LIFE });
    }

    #[test]
    fn what_is_too_old_is_told_and_a_family_ends_by_itself() {
        assert_eq!(judge(4, &FAMILY, 1061), Verdict::Reused);
        assert_eq!(judge(3, &FAMILY, 1000), Verdict::Reused);
        assert_eq!(judge(6, &FAMILY, 1000), Verdict::Reused, "of the future: no such token was given out");
        assert_eq!(judge(5, &FAMILY, 2000), Verdict::Expired);
    }

    proptest! {
        /// Whoever copies a token and uses the copy more than a minute after the owner used theirs is found out, whatever the owner did.
        #[test]
        fn a_thief_is_found_out_when_the_owner_has_gone_on(uses in 1..20_i64, late in 61..10_000_i64) {
            let mut family = Family { newest: 0, since: 0, expires: LIFE };
            for at in 1..=uses {
                let Verdict::Next(next) = judge(family.newest, &family, at) else { panic!("the owner is refused") };
                family = family.after(next, at);
            }
            prop_assert_eq!(judge(0, &family, uses + late), Verdict::Reused);
        }
    }
}
