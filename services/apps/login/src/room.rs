//! How many refusals the platform's audit log is told of: anybody may be refused as often as they like, and must not push out of
//! that log what others did. Login's own trail has them all. Pure.

use nexushub_applib::time::Unix;

/// So many at once,
const AT_ONCE: Unix = 100;
/// and one more after so many seconds.
const EVERY: Unix = 30;

/// Room for them.
#[derive(Debug, Default)]
pub(crate) struct Room {
    /// When all of it is there again.
    whole: Unix,
}

impl Room {
    /// Whether there is room for one more, which is taken then.
    pub(crate) fn take(&mut self, now: Unix) -> bool {
        let after = self.whole.max(now) + EVERY;
        let fits = after <= now + AT_ONCE * EVERY;
        if fits {
            self.whole = after;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_as_its_beginning_and_then_now_and_again() {
        let mut room = Room::default();
        let mut told = |now| (0..1_000).filter(|_| room.take(now)).count();
        assert_eq!([5_000, 5_000, 5_029, 5_030, 5_090].map(&mut told), [100, 0, 0, 1, 2]);
        assert_eq!(told(50_000), 100);
    }
}
