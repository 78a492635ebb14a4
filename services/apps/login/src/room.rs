//! How many refusals the platform's audit log is told of: anybody may be refused as often as they like, and must not push out of
//! that log what others did, nor what others were refused. So each site, an address or a customer's networks, has a small share of its
//! own in the room that there is for all. Login's own trail has them all. Pure.

use std::collections::HashMap;

use nexushub_applib::time::Unix;

/// Of one site so many at once, and one more after so many seconds.
const EACH: Pace = Pace { at_once: 20, every: 300 };
/// Of all of them together: ten that never cease leave room for one more.
const ALL: Pace = Pace { at_once: 400, every: 30 };

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
    /// The same of each site of which some is taken: no more of them than fit into the room of all while theirs fills again.
    sites: HashMap<String, Unix>,
}

impl Room {
    /// Whether there is room for one more of this site, which is taken then.
    pub(crate) fn take(&mut self, site: String, now: Unix) -> bool {
        self.sites.retain(|_, whole| *whole > now);
        let own = EACH.after(self.sites.get(&site).copied().unwrap_or(now), now);
        let Some((own, all)) = own.zip(ALL.after(self.whole, now)) else { return false };
        self.sites.insert(site, own);
        self.whole = all;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(room: &mut Room, site: &str, now: Unix) -> usize {
        (0..50).filter(|_| room.take(site.to_owned(), now)).count()
    }

    #[test]
    fn a_flood_is_told_as_its_beginning_and_then_now_and_again() {
        let mut room = Room::default();
        assert_eq!(
            [5_000, 5_000, 5_299, 5_300, 5_900].map(|now| told(&mut room, "a", now)),
            [20, 0, 0, 1, 2]
        );
        assert_eq!(told(&mut room, "a", 50_000), 20);
    }

    #[test]
    fn ten_sources_that_never_cease_silence_no_other() {
        let mut room = Room::default();
        for now in (0..50_000).step_by(50) {
            for loud in 0..10 {
                told(&mut room, &format!("loud {loud}"), now);
            }
        }
        assert_eq!(told(&mut room, "quiet", 50_000), 20);
        assert_eq!(told(&mut room, "loud 1", 50_000), 0);
    }

    #[test]
    fn all_together_are_bounded_and_so_is_what_is_kept_of_them() {
        let (mut room, mut all, mut most) = (Room::default(), 0, 0);
        for now in 0..300 {
            for site in 0..50 {
                all += usize::from(room.take(format!("{now} {site}"), now));
                most = most.max(room.sites.len());
            }
        }
        assert_eq!(all, 400 + 9);
        assert!(most <= 400 + 10, "{most}");
        assert!(room.take("one".into(), 5_000));
        assert_eq!(room.sites.len(), 1, "whose room is whole again is forgotten");
    }
}
