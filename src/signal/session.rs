//! A session: what of a client outlives its sockets.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::dialect::Dialect;
use super::envelope::Envelope;
use super::identity::{ClientKey, Identity};
use super::journal::{self, AnswerValue, Change, Table};
use super::outbox::Outbox;
use super::{ConnId, MemberId, SessionId};

/// One session.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Session {
    pub(crate) dialect: Dialect,
    pub(crate) identity: Identity,
    pub(crate) key: ClientKey,
    #[serde(skip)]
    pub(crate) conn: Option<ConnId>,
    /// The room it is in; one at a time.
    #[serde(skip)]
    pub(crate) place: Option<(Arc<str>, MemberId)>,
    pub(crate) outbox: Outbox,
    pub(crate) resume: ResumeSecrets,
    pub(crate) answered: Answered,
    /// The last Socket.IO event that was acknowledged, and with what.
    pub(crate) answered_event: Option<(Box<str>, serde_json::Value)>,
    /// The role a Socket.IO client says it has.
    pub(crate) declared_role: Option<Box<str>>,
    /// Rooms whose chat it listens to.
    pub(crate) chats: Vec<Arc<str>>,
    /// Whether a raw client asked for presence events.
    pub(crate) wants_events: bool,
    /// When the session ends because nobody came back.
    #[serde(skip)]
    pub(crate) away_until: Option<Duration>,
    /// When fresh credentials are due.
    #[serde(skip)]
    pub(crate) ice_at: Option<Duration>,
    /// Counts the relay credentials that were taken back; part of the name of those it has.
    pub(crate) lease: u32,
    /// When the relay credentials it has end, in Unix seconds; 0 where it has none.
    pub(crate) leased_until: u64,
    /// When the token ends.
    #[serde(skip)]
    pub(crate) expires_at: Option<Duration>,
    /// What the timer is set to.
    #[serde(skip)]
    pub(crate) armed: Option<Duration>,
    /// Whether a raw client is another one's successor, until that is known.
    #[serde(skip)]
    pub(crate) doubt: Option<Box<Doubt>>,
    /// Digest of what the journal has.
    #[serde(skip)]
    pub(crate) written: u64,
    /// Whether its outbox is written down later.
    #[serde(skip)]
    pub(crate) is_written_later: bool,
}

/// An older socket that may be this client's own, until it has shown life or died.
#[derive(Debug)]
pub(crate) struct Doubt {
    /// The member the older socket belongs to.
    pub(crate) member: MemberId,
    /// The older socket.
    pub(crate) conn: ConnId,
    /// When its silence has been long enough.
    pub(crate) until: Duration,
    /// Frames of an earlier era came before this client did.
    pub(crate) era: u64,
    /// Candidates that may belong to the older one's description.
    pub(crate) deferred: Vec<Envelope>,
}

impl Session {
    /// The earliest of its deadlines.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let attached = self.conn.is_some();
        let when_attached = [self.ice_at, self.expires_at].into_iter().flatten().filter(|_| attached);
        let doubt = self.doubt.as_ref().map(|doubt| doubt.until);
        when_attached.chain(self.away_until).chain(doubt).min()
    }
}

/// The resume secret, hashed. The one before it stays valid until the client has shown that it
/// received the new one: the welcome that carried it may have died with its socket.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct ResumeSecrets {
    current: Option<[u8; 32]>,
    previous: Option<[u8; 32]>,
}

impl ResumeSecrets {
    /// Puts a new secret in place; `bytes` come from the caller's random source.
    pub(crate) fn rotate(&mut self, session: SessionId, bytes: [u8; 32]) -> String {
        let secret = URL_SAFE_NO_PAD.encode(bytes);
        self.previous = self.current.replace(hash(&secret));
        format!("{session}.{secret}")
    }

    /// Whether `secret` is the current one or the one before it. The one that matched is the one
    /// that stays valid beside the next.
    pub(crate) fn accept(&mut self, secret: &str) -> bool {
        let given = hash(secret);
        let equals = |known: &Option<[u8; 32]>| known.is_some_and(|k| bool::from(k.ct_eq(&given)));
        let (current, previous) = (equals(&self.current), equals(&self.previous));
        if previous && !current {
            self.current = self.previous;
        }
        current || previous
    }

    /// The client has the current secret.
    pub(crate) fn confirmed(&mut self) {
        self.previous = None;
    }
}

/// What is kept of a secret.
pub(super) fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// Splits a resume string into the session it names and its secret.
pub(crate) fn split_resume(text: &str) -> Option<(SessionId, &str)> {
    let (session, secret) = text.split_once('.')?;
    let id = MemberId::parse(session)?;
    Some((SessionId(id.0), secret))
}

/// The client's message ids with their answers: a repeated id is answered, not carried out again.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Answered {
    #[serde(skip)]
    answers: HashMap<Box<str>, Arc<str>>,
    #[serde(skip)]
    order: VecDeque<Box<str>>,
    /// How many there were so far.
    count: u64,
    /// How many of these were written down, and how many of those are gone again.
    #[serde(skip)]
    written: u64,
    #[serde(skip)]
    cleared: u64,
}

impl Answered {
    pub(crate) fn find(&self, id: &str) -> Option<Arc<str>> {
        self.answers.get(id).cloned()
    }

    pub(crate) fn remember(&mut self, id: &str, answer: Arc<str>, bound: usize) {
        if self.answers.insert(id.into(), answer).is_none() {
            self.order.push_back(id.into());
            self.count += 1;
        }
        while self.order.len() > bound {
            if let Some(oldest) = self.order.pop_front() {
                self.answers.remove(&oldest);
            }
        }
    }

    /// What has changed since the last time, for the journal.
    pub(crate) fn take_changes(&mut self, owner: &str, changes: &mut Vec<Change>) {
        let gone = self.count - self.order.len() as u64;
        if gone.min(self.written) > self.cleared {
            let (from, to) = (self.cleared + 1, gone.min(self.written));
            changes.push(Change::Drop { table: Table::Answer, owner: owner.into(), from, to });
        }
        self.cleared = gone;
        for (number, id) in (gone + 1..).zip(&self.order).filter(|(number, _)| *number > self.written) {
            let answer = self.answers.get(id).map_or("", |a| a);
            let value = AnswerValue { id: id.clone(), answer: answer.into() };
            changes.push(Change::Put(journal::row(Table::Answer, owner, number, &value)));
        }
        self.written = self.count;
    }

    /// Forgets what was written down, so that all of it is written again.
    pub(crate) fn unwrite(&mut self) {
        (self.written, self.cleared) = (0, 0);
    }

    /// Takes an answer back in that was written down; they come in their order.
    pub(crate) fn restore(&mut self, value: &str) -> serde_json::Result<()> {
        let AnswerValue { id, answer } = serde_json::from_str(value)?;
        if self.answers.insert(id.clone(), answer.into()).is_none() {
            self.order.push_back(id);
        }
        self.count = self.count.max(self.order.len() as u64);
        self.written = self.count;
        self.cleared = self.count - self.order.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_previous_resume_secret_is_valid_until_the_new_one_is_confirmed() {
        let id = SessionId(7);
        let mut secrets = ResumeSecrets::default();
        let first = secrets.rotate(id, [1; 32]);
        let second = secrets.rotate(id, [2; 32]);
        let secret = |s: &str| split_resume(s).map(|(_, s)| s.to_owned()).expect("well formed");
        assert!(secrets.accept(&secret(&first)), "the second may never have arrived");
        let third = secrets.rotate(id, [3; 32]);
        assert!(!secrets.accept(&secret(&second)), "nobody has it");
        secrets.confirmed();
        assert!(!secrets.accept(&secret(&first)));
        assert!(secrets.accept(&secret(&third)));
    }

    #[test]
    fn remembered_ids_are_bounded() {
        let mut answered = Answered::default();
        for n in 0..10 {
            answered.remember(&n.to_string(), "ok".into(), 4);
        }
        assert!(answered.find("5").is_none() && answered.find("6").is_some());
        assert_eq!(answered.answers.len(), 4);
    }
}
