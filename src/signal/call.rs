//! Calls from one user to another: `pending` while the other side rings, `ongoing` once it has
//! accepted, and then one of five ends. The signaling of a call happens in the room of its id, which
//! only its two parties may enter.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Now;
use super::envelope::{Code, Refusal};
use super::json;
use super::limits::Limits;

/// Where a call is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CallStatus {
    /// It rings.
    Pending,
    /// Accepted.
    Ongoing,
    /// Over, as it should be.
    Ended,
    /// The other side did not want it.
    Rejected,
    /// The caller gave up while it rang.
    Cancelled,
    /// Nobody answered in time.
    Missed,
    /// Over because the connection was lost and did not come back.
    Failed,
}

impl CallStatus {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Ongoing => "ongoing",
            Self::Ended => "ended",
            Self::Rejected => "rejected",
            Self::Cancelled => "cancelled",
            Self::Missed => "missed",
            Self::Failed => "failed",
        }
    }

    /// Whether nothing can happen to the call any more.
    #[must_use]
    pub fn is_over(self) -> bool {
        !matches!(self, Self::Pending | Self::Ongoing)
    }
}

/// One call.
#[derive(Clone, Debug, Serialize)]
pub struct Call {
    /// Its id, which is the name of its room.
    #[serde(rename = "call_id")]
    pub id: Arc<str>,
    /// Where it is in its life.
    pub status: CallStatus,
    /// Who calls.
    #[serde(rename = "caller_id")]
    pub caller: Arc<str>,
    /// Who is called.
    #[serde(rename = "callee_id")]
    pub callee: Arc<str>,
    /// What the caller said about the media.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media: Option<Box<RawValue>>,
    /// Unix seconds; ISO 8601 on the wire, as the other times.
    #[serde(serialize_with = "json::time")]
    pub created_at: u64,
    /// Unix seconds of the last change or report.
    #[serde(serialize_with = "json::time")]
    pub updated_at: u64,
    /// Unix seconds.
    #[serde(serialize_with = "json::maybe_time")]
    pub accepted_at: Option<u64>,
    /// Unix seconds.
    #[serde(serialize_with = "json::maybe_time")]
    pub ended_at: Option<u64>,
    /// What a client said last about its connection; `new` before.
    pub connection_state: Box<str>,
    /// Candidates that were exchanged.
    pub ice_candidates_count: u32,
}

impl Call {
    /// Whether `user` is one of the two.
    #[must_use]
    pub fn has_party(&self, user: &str) -> bool {
        *self.caller == *user || *self.callee == *user
    }
}

/// What somebody wants of a call.
#[derive(Clone, Debug)]
pub enum CallAction {
    /// Ring.
    Initiate {
        /// Whom.
        callee: Arc<str>,
        /// Passed on as it is.
        media: Option<Box<RawValue>>,
    },
    /// Take it.
    Accept(Arc<str>),
    /// Refuse it.
    Reject(Arc<str>),
    /// Hang up, or give up.
    End(Arc<str>),
    /// The calls of this user that are not over.
    Active,
    /// One call.
    View(Arc<str>),
    /// All calls that are not over, whoever's.
    Overview,
}

/// All calls: the live ones, and for a while those that are over.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    calls: HashMap<Arc<str>, Entry>,
    live: HashMap<Arc<str>, Vec<Arc<str>>>,
    live_count: usize,
}

#[derive(Debug)]
pub(crate) struct Entry {
    call: Call,
    /// When ringing ends, or the wait for somebody to enter, or the memory of the call.
    pub(crate) deadline: Option<Duration>,
    /// What the timer is set to.
    pub(crate) armed: Option<Duration>,
}

/// What a step did: the call as it is now, and whether that is news.
pub(crate) struct Step {
    pub(crate) call: Call,
    pub(crate) is_new: bool,
}

impl Calls {
    pub(crate) fn get(&self, id: &str) -> Option<&Call> {
        self.calls.get(id).map(|entry| &entry.call)
    }

    /// A call of `user`; another's looks like none.
    pub(crate) fn of_party(&self, id: &str, user: &str) -> Result<&Call, Refusal> {
        self.get(id).filter(|call| call.has_party(user)).ok_or_else(no_such_call)
    }

    /// The calls of `user` that are not over, the oldest first.
    pub(crate) fn live_of(&self, user: &str) -> Vec<Call> {
        self.live.get(user).into_iter().flatten().filter_map(|id| self.get(id)).cloned().collect()
    }

    pub(crate) fn live_count(&self) -> usize {
        self.live_count
    }

    /// All calls that are not over, the oldest first.
    pub(crate) fn live(&self) -> Vec<Call> {
        let live = self.calls.values().map(|entry| &entry.call).filter(|call| !call.status.is_over());
        let mut live: Vec<Call> = live.cloned().collect();
        live.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        live
    }

    pub(crate) fn entry(&mut self, id: &str) -> Option<&mut Entry> {
        self.calls.get_mut(id)
    }

    pub(crate) fn initiate(&mut self, call: Call, mono: Duration, limits: &Limits) -> Result<Step, Refusal> {
        if call.callee.is_empty() || call.callee.len() > limits.name {
            let message = format!("callee_id has 1 to {} bytes", limits.name);
            return Err(Refusal::new(Code::BadFrame, message));
        }
        if call.caller == call.callee {
            return Err(Refusal::new(Code::BadFrame, "callee_id is the caller"));
        }
        if self.calls.len() >= limits.calls {
            return Err(Refusal::new(Code::Busy, "the server has as many calls as it may have"));
        }
        for user in [&call.caller, &call.callee] {
            if self.live.get(user).is_some_and(|calls| calls.len() >= limits.calls_per_user) {
                let message = format!("{user} has {} calls already", limits.calls_per_user);
                let is_caller = *user == call.caller;
                let code = if is_caller { Code::RateLimited } else { Code::Busy };
                return Err(Refusal::new(code, message));
            }
        }
        for user in [&call.caller, &call.callee] {
            self.live.entry(user.clone()).or_default().push(call.id.clone());
        }
        self.live_count += 1;
        let entry = Entry { call: call.clone(), deadline: Some(mono + limits.ring), armed: None };
        self.calls.insert(call.id.clone(), entry);
        Ok(Step { call, is_new: true })
    }

    /// Takes a call back in that was written down. What it had left of ringing, or of being remembered, goes on.
    pub(crate) fn restore(&mut self, call: Call, now: Now, limits: &Limits) {
        let left = |since: u64, whole: Duration| {
            let past = Duration::from_secs(now.unix.saturating_sub(since));
            Some(now.mono + whole.saturating_sub(past))
        };
        let deadline = match call.status {
            CallStatus::Pending => left(call.created_at, limits.ring),
            CallStatus::Ongoing => Some(now.mono + limits.resume_window),
            _ => left(call.ended_at.unwrap_or(call.updated_at), limits.call_memory),
        };
        if !call.status.is_over() {
            for user in [&call.caller, &call.callee] {
                self.live.entry(user.clone()).or_default().push(call.id.clone());
            }
            self.live_count += 1;
        }
        self.calls.insert(call.id.clone(), Entry { call, deadline, armed: None });
    }

    /// The call's id as the table has it.
    pub(crate) fn key(&self, id: &str) -> Option<Arc<str>> {
        self.calls.get_key_value(id).map(|(id, _)| id.clone())
    }

    /// The ids of all calls.
    pub(crate) fn ids(&self) -> Vec<Arc<str>> {
        self.calls.keys().cloned().collect()
    }

    /// The callee takes the call, which somebody enters by `until`; to say so again changes nothing.
    pub(crate) fn accept(
        &mut self,
        id: &str,
        user: &str,
        unix: u64,
        until: Duration,
    ) -> Result<Step, Refusal> {
        self.answer(CallStatus::Ongoing, id, user, unix, until)
    }

    /// The callee refuses the call; to say so again changes nothing.
    pub(crate) fn reject(
        &mut self,
        id: &str,
        user: &str,
        unix: u64,
        until: Duration,
    ) -> Result<Step, Refusal> {
        self.answer(CallStatus::Rejected, id, user, unix, until)
    }

    fn answer(
        &mut self,
        answer: CallStatus,
        id: &str,
        user: &str,
        unix: u64,
        until: Duration,
    ) -> Result<Step, Refusal> {
        let call = self.of_party(id, user)?;
        if *call.callee != *user {
            return Err(Refusal::new(Code::Forbidden, "only the one who is called can accept or reject"));
        }
        match call.status {
            CallStatus::Pending => Ok(self.set(id, answer, unix, until)),
            status if status == answer => Ok(Step { call: call.clone(), is_new: false }),
            other => Err(wrong_state(other)),
        }
    }

    /// Either side ends the call; one that is over stays as it ended.
    pub(crate) fn end(&mut self, id: &str, user: &str, unix: u64, until: Duration) -> Result<Step, Refusal> {
        let call = self.of_party(id, user)?;
        let status = match call.status {
            CallStatus::Pending if *call.caller == *user => CallStatus::Cancelled,
            CallStatus::Pending => CallStatus::Rejected,
            CallStatus::Ongoing if &*call.connection_state == "failed" => CallStatus::Failed,
            CallStatus::Ongoing => CallStatus::Ended,
            CallStatus::Ended
            | CallStatus::Rejected
            | CallStatus::Cancelled
            | CallStatus::Missed
            | CallStatus::Failed => return Ok(Step { call: call.clone(), is_new: false }),
        };
        Ok(self.set(id, status, unix, until))
    }

    /// The call ends without anybody saying so.
    pub(crate) fn finish(
        &mut self,
        id: &str,
        status: CallStatus,
        unix: u64,
        until: Duration,
    ) -> Option<Step> {
        self.get(id).filter(|call| !call.status.is_over())?;
        Some(self.set(id, status, unix, until))
    }

    /// Forgets a call that is over.
    pub(crate) fn forget(&mut self, id: &str) {
        self.calls.remove(id);
    }

    /// Notes a report or a candidate.
    pub(crate) fn note(&mut self, id: &str, unix: u64, change: impl FnOnce(&mut Call)) {
        if let Some(entry) = self.calls.get_mut(id).filter(|entry| !entry.call.status.is_over()) {
            entry.call.updated_at = unix;
            change(&mut entry.call);
        }
    }

    fn set(&mut self, id: &str, status: CallStatus, unix: u64, deadline: Duration) -> Step {
        let entry = self.calls.get_mut(id).expect("the caller has looked it up");
        let call = &mut entry.call;
        call.status = status;
        call.updated_at = unix;
        entry.deadline = Some(deadline);
        if status.is_over() {
            call.ended_at = Some(unix);
        } else {
            call.accepted_at = Some(unix);
        }
        let call = call.clone();
        if status.is_over() {
            self.live_count -= 1;
            for user in [&call.caller, &call.callee] {
                let Some(calls) = self.live.get_mut(user) else { continue };
                calls.retain(|one| **one != *id);
                if calls.is_empty() {
                    self.live.remove(user);
                }
            }
        }
        Step { call, is_new: true }
    }
}

fn no_such_call() -> Refusal {
    Refusal::new(Code::NoSuchCall, "you have no such call")
}

fn wrong_state(status: CallStatus) -> Refusal {
    Refusal::new(Code::WrongState, format!("the call is {}", status.as_str()))
}
