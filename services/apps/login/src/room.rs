//! How many refusals the platform's audit log is told of: anybody may be refused as often as they like, and must not push out of
//! that log what others did, nor what others were refused. So each network has a small share of its own in the room that there is
//! for all. Login's own trail has them all. Pure.

use std::collections::HashMap;

use nexushub_applib::time::Unix;

/// Of one network so many at once, and one more after so many seconds.
const EACH: Pace = Pace { at_once: 20, every: 30 };
/// Of all of them together: ten that never cease leave room for one more.
const ALL: Pace = Pace { at_once: 400, every: 3 };

/// How often something may be.
#[derive(Debug, Clone, Copy)]
struct Pace {
    at_once: Unix,
    every: Unix,
}

impl Pace {
    /// When all of its room is there again, once one more is taken of what is whole at that time; none if there is no room.
    fn after(self, whole: Unix, now: Unix) -> Option<Unix> {
        let after = whole.max(now) + self.every;
        (after <= now + self.at_once * self.every).then_some(after)
    }
}

/// Room for them.
#[derive(Debug, Default)]
pub(crate) struct Room {
    /// When all of it is there again.
    whole: Unix,
    /// The same of each network of which some is taken: no more of them than fit into the room of all while theirs fills again.
    networks: HashMap<String, Unix>,
}

impl Room {
    /// Whether there is room for one more of this network, which is taken then.
    pub(crate) fn take(&mut self, network: String, now: Unix) -> bool {
        self.networks.retain(|_, whole| *whole > now);
        let own = EACH.after(self.networks.get(&network).copied().unwrap_or(now), now);
        let Some((own, all)) = own.zip(ALL.after(self.whole, now)) else { return false };
        self.networks.insert(network, own);
        self.whole = all;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(room: &mut Room, network: &str, now: Unix) -> usize {
        (0..1_000).filter(|_| room.take(network.to_owned(), now)).count()
    }

    #[test]
    fn a_flood_is_told_as_its_beginning_and_then_now_and_again() {
        let mut room = Room::default();
        assert_eq!(
            [5_000, 5_000, 5_029, 5_030, 5_090].map(|now| told(&mut room, "a", now)),
            [20, 0, 0, 1, 2]
        );
        assert_eq!(told(&mut room, "a", 50_000), 20);
    }

    #[test]
    fn one_source_that_never_ceases_silences_no_other() {
        let mut room = Room::default();
        for now in 0..5_000 {
            told(&mut room, "loud", now);
        }
        assert_eq!(told(&mut room, "quiet", 5_000), 20);
        assert_eq!(told(&mut room, "loud", 5_000), 0);
    }

    #[test]
    fn all_together_are_bounded_and_so_is_what_is_kept_of_them() {
        let (mut room, mut all, mut most) = (Room::default(), 0, 0);
        for now in 0..300 {
            for network in 0..50 {
                all += usize::from(room.take(format!("{now} {network}"), now));
                most = most.max(room.networks.len());
            }
        }
        assert_eq!(all, 400 + 99);
        assert!(most <= 400 + 10, "{most}");
        assert!(room.take("one".into(), 5_000));
        assert_eq!(room.networks.len(), 1, "whose room is whole again is forgotten");
    }
}
