//! What one session was sent and has not confirmed.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::MemberId;
use super::envelope::Kind;
use super::journal::{self, Change, FrameValue, Table};

/// Sequence numbers that the journal knows of ahead of their use.
const NUMBERS: u64 = 1024;

/// One frame that waits for confirmation.
#[derive(Clone, Debug)]
pub(crate) struct Queued {
    pub(crate) seq: u64,
    pub(crate) text: Arc<str>,
    /// Sender and kind of a relayed message; `None` for the server's own frames.
    pub(crate) about: Option<(MemberId, Kind)>,
    /// The hub's era at that time.
    pub(crate) era: u64,
}

/// Bounded, in order of sequence numbers. Beyond its bounds the oldest frame goes, which a resume
/// then notices.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outbox {
    #[serde(skip)]
    frames: VecDeque<Queued>,
    #[serde(skip)]
    bytes: usize,
    #[serde(skip)]
    last: u64,
    /// The highest sequence number that is gone, confirmed or dropped.
    #[serde(skip)]
    gone: u64,
    /// The highest sequence number that was dropped for want of room.
    #[serde(default)]
    lost: u64,
    /// Numbers up to this one may have been given out: a frame may leave before it is written down, and no number is
    /// given to two.
    reserved: u64,
    /// The reserved number that is written down.
    #[serde(skip)]
    promised: u64,
    /// The lost number that is written down.
    #[serde(skip)]
    told: u64,
    /// The last frame that was written down, and the last one whose row is gone again.
    #[serde(skip)]
    written: u64,
    #[serde(skip)]
    cleared: u64,
    /// The last frame that the client's socket has for certain.
    #[serde(skip)]
    received: u64,
    /// Rows between the two that are gone.
    #[serde(skip)]
    stale: Vec<u64>,
}

impl Outbox {
    /// The number the next frame gets.
    pub(crate) fn next_seq(&self) -> u64 {
        self.last + 1
    }

    /// The number of the last frame.
    pub(crate) fn last_seq(&self) -> u64 {
        self.last
    }

    /// Takes in the frame that was rendered with [`Self::next_seq`]; how many were dropped for it.
    pub(crate) fn push(
        &mut self,
        text: Arc<str>,
        about: Option<(MemberId, Kind)>,
        era: u64,
        (max_frames, max_bytes): (usize, usize),
    ) -> u64 {
        self.last += 1;
        if self.last > self.reserved {
            self.reserved = self.last + NUMBERS;
        }
        self.bytes += text.len();
        self.frames.push_back(Queued { seq: self.last, text, about, era });
        let mut dropped = 0;
        while self.frames.len() > max_frames || self.bytes > max_bytes {
            let Some(oldest) = self.frames.pop_front() else { break };
            self.bytes -= oldest.text.len();
            (self.gone, self.lost) = (oldest.seq, oldest.seq);
            dropped += 1;
        }
        dropped
    }

    /// Forgets what was confirmed; whether there was something.
    pub(crate) fn confirm(&mut self, seq: u64) -> bool {
        let before = self.frames.len();
        self.gone = self.gone.max(seq.min(self.last));
        while self.frames.front().is_some_and(|f| f.seq <= seq) {
            if let Some(frame) = self.frames.pop_front() {
                self.bytes -= frame.text.len();
            }
        }
        self.frames.len() < before
    }

    /// The client's socket has all up to `seq`, whatever becomes of this server: it need not be written down. The
    /// frames stay for a client that comes back and says it has less. Whether rows of it are to go.
    pub(crate) fn received(&mut self, seq: u64) -> bool {
        self.received = self.received.max(seq.min(self.last));
        self.last_cleared() > self.cleared
    }

    /// Whether everything after `seq` is still there.
    pub(crate) fn can_replay_from(&self, seq: u64) -> bool {
        seq >= self.gone && seq <= self.last
    }

    /// Forgets descriptions and candidates of `from`: a newer offer makes them stale.
    pub(crate) fn forget_negotiation(&mut self, from: MemberId) {
        let (bytes, written, gone) = (&mut self.bytes, self.written, &mut self.stale);
        self.frames.retain(|frame| {
            let stale = matches!(
                frame.about,
                Some((sender, Kind::Offer | Kind::Answer | Kind::Candidate)) if sender == from
            );
            if stale {
                *bytes -= frame.text.len();
                if frame.seq <= written {
                    gone.push(frame.seq);
                }
            }
            !stale
        });
    }

    /// Whether the journal knows of the numbers that were given out.
    pub(crate) fn keeps_its_numbers(&self) -> bool {
        self.promised == self.reserved
    }

    /// Whether the journal's rows of it are out of date, or a frame up to this one has none.
    pub(crate) fn differs(&self, upto: u64) -> bool {
        self.rowless(upto).next().is_some()
            || self.last_cleared() > self.cleared
            || self.lost != self.told
            || !self.keeps_its_numbers()
            || !self.stale.is_empty()
    }

    /// Frames up to the one with this number that are to be written down.
    fn rowless(&self, upto: u64) -> impl Iterator<Item = &Queued> {
        let safe = self.written.max(self.received);
        let from = self.frames.partition_point(|f| f.seq <= safe);
        self.frames.range(from..).take_while(move |f| f.seq <= upto)
    }

    /// The last frame that was written down and need not be, as none before it.
    fn last_cleared(&self) -> u64 {
        self.frames.front().map_or(self.last, |f| f.seq - 1).max(self.received).min(self.written)
    }

    /// What has changed since the last time, for the journal; frames up to the one with this number.
    pub(crate) fn take_changes(&mut self, owner: &str, upto: u64, changes: &mut Vec<Change>) {
        let mut drop =
            |from, to| changes.push(Change::Drop { table: Table::Frame, owner: owner.into(), from, to });
        (self.promised, self.told) = (self.reserved, self.lost);
        let upto = upto.min(self.last).max(self.written);
        let gone = self.last_cleared();
        if gone > self.cleared {
            drop(self.cleared + 1, gone);
        }
        std::mem::take(&mut self.stale).into_iter().filter(|n| *n > gone).for_each(|n| drop(n, n));
        for frame in self.rowless(upto) {
            let value = FrameValue { text: (&*frame.text).into(), about: frame.about };
            changes.push(Change::Put(journal::row(Table::Frame, owner, frame.seq, &value)));
        }
        self.written = upto;
        // What got no row needs no clearing.
        self.cleared = self.last_cleared();
    }

    /// Goes on from what was written down of it, before its frames come back.
    pub(crate) fn resume(&mut self) {
        (self.last, self.promised, self.written) = (self.reserved, self.reserved, self.reserved);
        (self.gone, self.told) = (self.lost, self.lost);
    }

    /// Whether frames are to be written down that are not.
    pub(crate) fn has_unwritten(&self) -> bool {
        self.rowless(u64::MAX).next().is_some()
    }

    /// Forgets what was written down, so that all of it is written again.
    pub(crate) fn unwrite(&mut self) {
        (self.written, self.cleared) = (0, 0);
        self.stale.clear();
    }

    /// Takes a frame back in that was written down; they come in their order.
    pub(crate) fn restore(&mut self, seq: u64, value: &str) -> serde_json::Result<()> {
        let FrameValue { text, about } = serde_json::from_str(value)?;
        // What is missing before it was confirmed, or was never given out: numbers leap at a restart.
        if self.frames.is_empty() {
            self.cleared = seq.saturating_sub(1);
        }
        if seq <= self.last {
            self.bytes += text.len();
            self.frames.push_back(Queued { seq, text: text.into(), about, era: 0 });
        }
        Ok(())
    }

    /// What waits, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Queued> {
        self.frames.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outbox_is_bounded_in_frames_and_bytes_and_knows_what_it_lost() {
        let mut outbox = Outbox::default();
        for _ in 0..5 {
            outbox.push("12345".into(), None, 0, (3, 100));
        }
        assert_eq!(outbox.iter().map(|f| f.seq).collect::<Vec<_>>(), [3, 4, 5]);
        assert!(!outbox.can_replay_from(1));
        assert!(outbox.can_replay_from(2));
        assert_eq!(outbox.push("x".repeat(90).into(), None, 0, (3, 100)), 1);
        assert_eq!(outbox.bytes, 100);
        outbox.confirm(6);
        assert_eq!((outbox.bytes, outbox.frames.len()), (0, 0));
        assert!(!outbox.can_replay_from(9), "a number that was never given");
    }
}
