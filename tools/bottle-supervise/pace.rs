//! How fast an agent may propose. What comes faster is only counted.

use std::time::{Duration, Instant};

/// The most at once.
const BURST: u32 = 8;
/// Until there is room for one more.
const EACH: Duration = Duration::from_secs(5);
/// How often it is told that proposals were turned away.
const TELL: Duration = Duration::from_mins(1);

/// A bucket, and what has run over.
#[derive(Debug)]
pub(crate) struct Pace {
    left: u32,
    since: Instant,
    turned_away: u64,
    told: Option<Instant>,
}

impl Pace {
    pub(crate) fn new(now: Instant) -> Self {
        Self { left: BURST, since: now, turned_away: 0, told: None }
    }

    /// Takes a place, if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let more = now.duration_since(self.since).as_millis() / EACH.as_millis();
        let more = u32::try_from(more).unwrap_or(BURST).min(BURST);
        if more > 0 {
            self.left = (self.left + more).min(BURST);
            self.since = now;
        }
        let is_room = self.left > 0;
        self.left -= u32::from(is_room);
        is_room
    }

    /// Counts one that was turned away.
    pub(crate) fn turn_away(&mut self) {
        self.turned_away += 1;
    }

    /// How many were turned away, when it is time to tell.
    pub(crate) fn tell(&mut self, now: Instant) -> Option<u64> {
        let is_due = self.told.is_none_or(|told| now.duration_since(told) >= TELL);
        if self.turned_away == 0 || !is_due {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.turned_away))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_is_followed_by_one_each_while() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        assert_eq!((0..1000).filter(|_| pace.take(start)).count(), BURST as usize);
        assert!(!pace.take(start + EACH / 2));
        assert!(pace.take(start + EACH) && !pace.take(start + EACH));
        let later = start + EACH * 1000;
        assert_eq!((0..1000).filter(|_| pace.take(later)).count(), BURST as usize);
    }

    #[test]
    fn what_is_turned_away_is_told_once_in_a_while() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        assert_eq!(pace.tell(start), None);
        for _ in 0..1000 {
            pace.turn_away();
        }
        assert_eq!(pace.tell(start), Some(1000));
        pace.turn_away();
        assert_eq!(pace.tell(start), None);
        assert_eq!(pace.tell(start + TELL), Some(1));
    }
}
