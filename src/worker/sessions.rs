//! The DTLS sessions of a worker: found by 5-tuple and by name, with a bound on handshakes that go on.

use std::collections::HashMap;
use std::time::Duration;

use super::desk::Place;
use super::slots::Slots;
use crate::dtls::Session;
use crate::io::SocketRef;
use crate::turn::{ClientPath, FiveTuple, LinkId};

/// Handshakes of a worker at a time.
const HALF_OPEN: usize = 256;

/// How long a handshake may go on before another one may take its place: any client needs less.
const GRACE: Duration = Duration::from_secs(1);

/// A client's session.
pub(super) struct Association {
    pub(super) session: Session,
    pub(super) path: ClientPath,
    /// The listener it uses.
    pub(super) listener: SocketRef,
    /// When the last message came.
    pub(super) last: Duration,
    _place: Place,
}

/// A handshake that goes on.
struct HalfOpen {
    name: SocketRef,
    begun: Duration,
    /// When it wants to be looked at again.
    due: Duration,
}

/// Whether another handshake may begin.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// Yes.
    Free,
    /// If this one gives way.
    InPlaceOf(SocketRef),
    /// No.
    Full,
}

/// The sessions of a worker.
#[derive(Default)]
pub(super) struct Sessions {
    slots: Slots<Association>,
    by_tuple: HashMap<FiveTuple, SocketRef, foldhash::fast::RandomState>,
    /// Oldest first.
    half_open: Vec<HalfOpen>,
    /// No handshake is due before.
    due: Option<Duration>,
}

impl Sessions {
    /// The session of a 5-tuple.
    pub(super) fn find(&self, five_tuple: &FiveTuple) -> Option<SocketRef> {
        self.by_tuple.get(five_tuple).copied()
    }

    pub(super) fn get_mut(&mut self, name: SocketRef) -> Option<&mut Association> {
        self.slots.get_mut(name.0 & !SocketRef::SESSION)
    }

    /// Whether there is room for a handshake. The oldest makes room, not the newcomer: what hangs is
    /// older than what is alive. But each has a moment to itself.
    pub(super) fn room(&self, now: Duration) -> Room {
        match self.half_open.first() {
            Some(oldest) if self.half_open.len() >= HALF_OPEN => {
                if now.saturating_sub(oldest.begun) >= GRACE {
                    Room::InPlaceOf(oldest.name)
                } else {
                    Room::Full
                }
            }
            _ => Room::Free,
        }
    }

    /// Takes a session that has begun its handshake, in place of none: the 5-tuple must be free.
    pub(super) fn insert(
        &mut self,
        session: Session,
        five_tuple: FiveTuple,
        listener: SocketRef,
        place: Place,
        now: Duration,
    ) -> Option<SocketRef> {
        let name = self.slots.insert(|name| {
            let path = ClientPath { five_tuple, link: LinkId(SocketRef::SESSION | name) };
            Association { session, path, listener, last: now, _place: place }
        })?;
        let name = SocketRef(SocketRef::SESSION | name);
        self.by_tuple.insert(five_tuple, name);
        self.half_open.push(HalfOpen { name, begun: now, due: now });
        Some(name)
    }

    /// The handshake is complete.
    pub(super) fn connected(&mut self, name: SocketRef) {
        self.half_open.retain(|half| half.name != name);
    }

    /// A handshake wants to be looked at again at `due`.
    pub(super) fn schedule(&mut self, name: SocketRef, due: Duration) {
        if let Some(half) = self.half_open.iter_mut().find(|half| half.name == name) {
            half.due = due;
            self.due = Some(self.due.map_or(due, |before| before.min(due)));
        }
    }

    /// When a handshake may want to be looked at.
    pub(super) fn due(&self) -> Option<Duration> {
        self.due
    }

    /// The handshakes that want to be looked at now.
    pub(super) fn take_due(&mut self, now: Duration) -> Vec<SocketRef> {
        if self.due.is_none_or(|due| due > now) {
            return Vec::new();
        }
        self.due = self.half_open.iter().map(|half| half.due).filter(|due| *due > now).min();
        self.half_open.iter().filter(|half| half.due <= now).map(|half| half.name).collect()
    }

    pub(super) fn remove(&mut self, name: SocketRef) -> Option<Association> {
        let association = self.slots.remove(name.0 & !SocketRef::SESSION)?;
        self.by_tuple.remove(&association.path.five_tuple);
        self.connected(name);
        Some(association)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Association> {
        self.slots.iter()
    }

    /// Sessions, and handshakes among them.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.slots.len(), self.half_open.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn half_open(begun: impl Iterator<Item = u64>) -> Sessions {
        let half = |(n, begun)| HalfOpen {
            name: SocketRef(SocketRef::SESSION | n),
            begun: Duration::from_millis(begun),
            due: Duration::from_millis(begun + 1000),
        };
        let mut sessions = Sessions::default();
        sessions.half_open.extend((0..).zip(begun).map(half));
        sessions.due = sessions.half_open.iter().map(|half| half.due).min();
        sessions
    }

    #[test]
    fn handshakes_are_bounded_and_the_oldest_gives_way_after_a_moment() {
        let at = Duration::from_millis;
        assert_eq!(half_open(0..HALF_OPEN as u64 - 1).room(at(300)), Room::Free);
        let full = half_open(0..HALF_OPEN as u64);
        assert_eq!(full.room(at(999)), Room::Full, "the oldest has had less than a second");
        assert_eq!(full.room(at(1000)), Room::InPlaceOf(SocketRef(SocketRef::SESSION)));
    }

    #[test]
    fn a_complete_handshake_makes_room() {
        let mut full = half_open(0..HALF_OPEN as u64);
        full.connected(SocketRef(SocketRef::SESSION | 7));
        assert_eq!(full.room(Duration::from_millis(300)), Room::Free);
    }

    #[test]
    fn handshakes_are_looked_at_when_they_are_due() {
        let mut sessions = half_open([0, 500, 2000].into_iter());
        let at = Duration::from_millis;
        let named = |n: &[u32]| n.iter().map(|n| SocketRef(SocketRef::SESSION | n)).collect::<Vec<_>>();
        assert_eq!(sessions.due(), Some(at(1000)));
        assert_eq!(sessions.take_due(at(999)), []);
        assert_eq!(sessions.take_due(at(1600)), named(&[0, 1]));
        assert_eq!(sessions.due(), Some(at(3000)));
        sessions.schedule(SocketRef(SocketRef::SESSION), at(2500));
        assert_eq!(sessions.due(), Some(at(2500)));
        sessions.connected(SocketRef(SocketRef::SESSION));
        assert_eq!(sessions.take_due(at(2500)), named(&[1]), "which has not been scheduled again");
    }
}
