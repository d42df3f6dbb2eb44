//! A room: who is in it, who is the polite one, and the mail that waits for whoever comes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::dialect::Dialect;
use super::dialect::peerjs::Connection;
use super::envelope::{Envelope, Kind};
use super::limits::Limits;
use super::timeline::{COUNTED, Candidate};
use super::{MemberId, SessionId};

/// One member. A member whose socket is gone stays until its session ends.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) id: MemberId,
    pub(crate) session: SessionId,
    pub(crate) user: Arc<str>,
    pub(crate) name: Option<Arc<str>>,
    pub(crate) role: Option<Arc<str>>,
    pub(crate) dialect: Dialect,
    pub(crate) is_guest: bool,
    /// Order of arrival.
    pub(crate) arrival: u64,
    /// Whether there is no socket at the moment.
    #[serde(skip)]
    pub(crate) is_away: bool,
    pub(crate) media: Option<Box<RawValue>>,
    /// Members whose description was forwarded to this one.
    pub(crate) described: Vec<MemberId>,
    /// The id a PeerJS client has given itself.
    pub(crate) peer: Option<Arc<str>>,
    /// Its connections with others, by PeerJS.
    pub(crate) connections: Vec<(MemberId, Connection)>,
    /// Candidates that came ahead of their description.
    pub(crate) early: Vec<(MemberId, Envelope)>,
    /// Candidates of its own that the timeline was told of, by [`Candidate::ALL`].
    #[serde(skip)]
    pub(crate) counted: [u8; Candidate::ALL.len()],
}

impl Member {
    /// Whether this member is the polite one toward `other`. The later one is, except that a client
    /// which takes any offer at any time is polite toward one that knows its role.
    pub(crate) fn is_polite_toward(&self, other: &Self) -> bool {
        match (self.dialect.always_yields(), other.dialect.always_yields()) {
            (true, false) => true,
            (false, true) => false,
            (true, true) | (false, false) => self.arrival > other.arrival,
        }
    }

    /// Counts a candidate it has sent; whether the timeline still does.
    pub(crate) fn counts(&mut self, candidate: Candidate) -> bool {
        let count = &mut self.counted[candidate.index()];
        let is_counted = *count < COUNTED;
        *count += u8::from(is_counted);
        is_counted
    }

    /// Takes in which tracks are on; those that are not named stay as they were.
    pub(crate) fn note_media(&mut self, state: Option<&RawValue>) {
        type Tracks = serde_json::Map<String, serde_json::Value>;
        let read = |raw: Option<&RawValue>| raw.and_then(|r| serde_json::from_str::<Tracks>(r.get()).ok());
        self.media = match (read(self.media.as_deref()), read(state)) {
            (Some(mut known), Some(new)) => {
                known.extend(new);
                serde_json::value::to_raw_value(&known).ok()
            }
            _ => state.map(ToOwned::to_owned),
        };
    }

    /// Remembers that a description of `from` was forwarded, and hands out what waited for it.
    pub(crate) fn description_arrived(&mut self, from: MemberId) -> Vec<Envelope> {
        if !self.described.contains(&from) {
            self.described.push(from);
        }
        let (ready, early) =
            std::mem::take(&mut self.early).into_iter().partition(|(sender, _)| *sender == from);
        self.early = early;
        let ready: Vec<(MemberId, Envelope)> = ready;
        ready.into_iter().map(|(_, envelope)| envelope).collect()
    }

    /// Hands out what waited for descriptions that were forwarded since.
    pub(crate) fn take_ready(&mut self) -> Vec<(MemberId, Envelope)> {
        let (ready, early) =
            std::mem::take(&mut self.early).into_iter().partition(|(from, _)| self.described.contains(from));
        self.early = early;
        ready
    }

    /// Forgets a member that is gone.
    fn forget(&mut self, gone: MemberId) {
        self.described.retain(|m| *m != gone);
        self.early.retain(|(m, _)| *m != gone);
        self.connections.retain(|(m, _)| *m != gone);
    }
}

/// The latest unanswered offer of one sender to the whole room, with its candidates.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Mail {
    pub(crate) offer: Option<Envelope>,
    pub(crate) candidates: Vec<Envelope>,
    #[serde(skip)]
    pub(crate) since: Duration,
    /// Who has been given the offer.
    pub(crate) given_to: Vec<MemberId>,
    bytes: usize,
}

/// What became of a message that should wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    Yes,
    /// A bound was reached.
    Full,
}

/// Who may enter without a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Policy {
    /// Everybody the server lets in.
    Open,
    /// Bearers of tokens only: somebody came with a token that names this room.
    Protected,
}

/// One room.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Room {
    pub(crate) name: Arc<str>,
    pub(crate) policy: Policy,
    pub(crate) members: Vec<Member>,
    pub(crate) mail: BTreeMap<MemberId, Mail>,
    arrivals: u64,
    /// Names the time from the first one's coming to the last one's leaving.
    pub(crate) session: Box<str>,
    /// Digest of what the journal has.
    #[serde(skip)]
    pub(crate) written: u64,
}

impl Room {
    /// An empty room; `session` names its time.
    pub(crate) fn new(name: Arc<str>, session: Box<str>) -> Self {
        Self {
            name,
            policy: Policy::Open,
            // Two in nearly all cases.
            members: Vec::with_capacity(2),
            mail: BTreeMap::new(),
            arrivals: 0,
            session,
            written: 0,
        }
    }

    /// The place in the order of arrival of the next member.
    pub(crate) fn next_arrival(&mut self) -> u64 {
        self.arrivals += 1;
        self.arrivals
    }

    pub(crate) fn member(&self, id: MemberId) -> Option<&Member> {
        self.members.iter().find(|m| m.id == id)
    }

    pub(crate) fn member_mut(&mut self, id: MemberId) -> Option<&mut Member> {
        self.members.iter_mut().find(|m| m.id == id)
    }

    pub(crate) fn present(&self) -> usize {
        self.members.iter().filter(|m| !m.is_away).count()
    }

    /// Takes a member out, with everything that waits from it.
    pub(crate) fn remove(&mut self, id: MemberId) -> Option<Member> {
        let at = self.members.iter().position(|m| m.id == id)?;
        let gone = self.members.remove(at);
        self.mail.remove(&id);
        for member in &mut self.members {
            member.forget(id);
        }
        for mail in self.mail.values_mut() {
            mail.given_to.retain(|m| *m != id);
        }
        Some(gone)
    }

    /// `heir` takes the place of `old` in what was forwarded and what waits; both stay members.
    /// Hands out candidates that waited for a description which `old` had sent.
    pub(crate) fn succeed(&mut self, old: MemberId, heir: MemberId) -> Vec<(MemberId, Envelope)> {
        let mut ready = Vec::new();
        if let Some(mail) = self.mail.remove(&old) {
            self.mail.entry(heir).or_insert(mail);
        }
        for mail in self.mail.values_mut().filter(|m| m.given_to.contains(&old)) {
            mail.given_to.push(heir);
        }
        let taken = self.member_mut(old).map(|m| (m.described.clone(), std::mem::take(&mut m.early)));
        let (described, early) = taken.unwrap_or_default();
        for member in &mut self.members {
            if member.id == heir {
                member.described.extend(&described);
                member.early.extend(early.iter().cloned());
            }
            for (sender, _) in member.early.iter_mut().filter(|(sender, _)| *sender == old) {
                *sender = heir;
            }
            if member.described.contains(&old) {
                let id = member.id;
                ready.extend(member.description_arrived(heir).into_iter().map(|e| (id, e)));
            }
        }
        ready
    }

    /// Keeps an offer for whoever comes. It replaces the older one together with its candidates;
    /// those that overtook the new offer stay.
    pub(crate) fn keep_offer(
        &mut self,
        from: MemberId,
        offer: &Envelope,
        now: Duration,
        limits: &Limits,
    ) -> Kept {
        let mut candidates = match self.mail.remove(&from) {
            None => Vec::new(),
            Some(old) if old.offer.is_none() => old.candidates,
            Some(mut old) => {
                old.candidates.retain(|c| c.ufrag.as_deref().is_some_and(|u| offer.has_ufrag(u)));
                old.candidates
            }
        };
        if offer.len() > limits.mail_bytes {
            return Kept::Full;
        }
        let mut bytes = offer.len();
        candidates.retain(|c| {
            let fits = bytes + c.len() <= limits.mail_bytes;
            bytes += if fits { c.len() } else { 0 };
            fits
        });
        let mail = Mail { offer: Some(offer.clone()), candidates, since: now, given_to: Vec::new(), bytes };
        self.mail.insert(from, mail);
        Kept::Yes
    }

    /// Keeps a candidate with its offer, or ahead of it.
    pub(crate) fn keep_candidate(
        &mut self,
        from: MemberId,
        candidate: &Envelope,
        now: Duration,
        limits: &Limits,
    ) -> Kept {
        let mail = self.mail.entry(from).or_insert_with(|| Mail {
            offer: None,
            candidates: Vec::new(),
            since: now,
            given_to: Vec::new(),
            bytes: 0,
        });
        let bytes = mail.bytes + candidate.len();
        if mail.candidates.len() >= limits.mail_candidates || bytes > limits.mail_bytes {
            return Kept::Full;
        }
        mail.bytes = bytes;
        mail.candidates.push(candidate.clone());
        Kept::Yes
    }

    /// Whether an offer of `from` waits.
    pub(crate) fn has_offer_of(&self, from: MemberId) -> bool {
        self.mail.get(&from).is_some_and(|m| m.offer.is_some())
    }

    /// An answer of `by` settles the offers it was given; an answer to one member settles that one's.
    /// It also ends an offer of its own, which `by` has rolled back to take the other one.
    pub(crate) fn settle(&mut self, by: MemberId, to: Option<MemberId>) {
        self.mail.retain(|sender, mail| {
            let answered = match to {
                Some(to) => *sender == to,
                None => *sender != by && mail.given_to.contains(&by),
            };
            !answered && *sender != by
        });
    }

    /// Senders whose mail `joiner` gets now, in their order of arrival. A client that confirms what
    /// it gets is left to answer, unless anybody may (`for_all`); a raw one may have died with the offer
    /// in its socket.
    pub(crate) fn mail_for(
        &self,
        joiner: MemberId,
        except: Option<MemberId>,
        for_all: bool,
    ) -> Vec<MemberId> {
        let mut senders: Vec<(u64, MemberId)> = self
            .mail
            .iter()
            .filter(|(sender, mail)| **sender != joiner && Some(**sender) != except && mail.offer.is_some())
            .filter_map(|(sender, mail)| {
                let member = self.member(*sender)?;
                let somebody_has_it =
                    mail.given_to.iter().any(|m| self.member(*m).is_some_and(|m| !m.is_away));
                (for_all || !member.dialect.acknowledges() || !somebody_has_it)
                    .then_some((member.arrival, *sender))
            })
            .collect();
        senders.sort_unstable();
        senders.into_iter().map(|(_, sender)| sender).collect()
    }

    /// Drops mail older than its life; how many offers that were.
    pub(crate) fn expire_mail(&mut self, now: Duration, ttl: Duration) -> u64 {
        let mut expired = 0;
        self.mail.retain(|_, mail| {
            let keep = mail.since + ttl > now;
            expired += u64::from(!keep && mail.offer.is_some());
            keep
        });
        expired
    }

    /// When the oldest mail ends.
    pub(crate) fn mail_deadline(&self, ttl: Duration) -> Option<Duration> {
        self.mail.values().map(|m| m.since + ttl).min()
    }
}

impl Mail {
    /// The offer, then its candidates.
    pub(crate) fn messages(&self) -> impl Iterator<Item = &Envelope> {
        self.offer.iter().chain(&self.candidates)
    }
}

/// Whether messages of this kind must not overtake a description.
pub(crate) fn waits_for_description(kind: Kind) -> bool {
    kind == Kind::Candidate
}
