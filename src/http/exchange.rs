//! The hub and what is around it. Whoever brings an input carries it out under one lock, up to the queues of the
//! sockets that get something: between the socket that reads a message and the one that writes it nobody else is woken.
//!
//! What has to be written down first, and what time brings about, is left to one task, which so does for many
//! inputs at once what is dear.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::yield_now;
use tokio::time::sleep_until;
use tracing::{debug, info, warn};

use super::access;
use super::app::{Input, News, Revoke, unix};
use super::ice;
use super::journal::{Effect, Held, Journal, Progress};
use super::outgoing::{Command, Link};
use super::settings::{Access, Settings};
use crate::signal::{ConnId, Hub, Now, Output, OwnIds, RelayNews, Row, Stats, lease_name};

/// Bytes that wait for one socket, on top of what a resume may replay at once. A slow consumer
/// loses its socket, not its session.
const SOCKET_BYTES: usize = 256 * 1024;

/// Inputs of one turn, which are written down together.
const TURN: usize = 64;

/// The hub, and what an input needs to be carried out to its end.
pub(super) struct Exchange {
    hub: Hub,
    settings: Arc<Settings>,
    links: HashMap<ConnId, Link, OwnIds>,
    start: Instant,
    /// Inputs of this turn.
    inputs: usize,
    /// What was not carried out yet, in its order.
    effects: Vec<Effect>,
    /// What waits for the journal.
    held: Held,
    revoke: Option<Revoke>,
    /// Who wants to hear that a turn has ended.
    asked: Vec<oneshot::Sender<()>>,
    /// Wakes the task that ends turns.
    bell: mpsc::Sender<()>,
    /// When that task wakes by itself.
    alarm: Option<Duration>,
}

/// The hub's lock. It is never held over an `await`.
pub(super) fn lock(exchange: &Mutex<Exchange>) -> MutexGuard<'_, Exchange> {
    exchange.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Exchange {
    /// Starts the task that ends turns, on the current tokio runtime; it ends with the exchange.
    pub(super) fn open(
        settings: Arc<Settings>,
        start: Instant,
        seed: [u8; 32],
        journal: Option<Journal>,
        revoke: Option<Revoke>,
    ) -> Arc<Mutex<Self>> {
        let (bell, rung) = mpsc::channel(1);
        let mut exchange = Self {
            hub: Hub::new(settings.limits.clone(), protects_rooms(&settings), seed),
            settings,
            links: HashMap::default(),
            start,
            inputs: 0,
            effects: Vec::new(),
            held: Held::new(None),
            revoke,
            asked: Vec::new(),
            bell,
            alarm: None,
        };
        if let Some(mut journal) = journal {
            exchange.restore(std::mem::take(&mut journal.rows));
            exchange.held = Held::new(Some(journal));
        }
        let progress = exchange.held.watch();
        let exchange = Arc::new(Mutex::new(exchange));
        tokio::spawn(end_turns(Arc::downgrade(&exchange), rung, progress));
        exchange
    }

    fn restore(&mut self, rows: Vec<Row>) {
        let count = rows.len();
        self.hub.keep_journal();
        let unread = self.hub.restore(self.now(), rows);
        if unread > 0 {
            warn!(unread, "rows of the journal cannot be read and are left out");
        }
        let Stats { sessions, calls, .. } = self.hub.stats();
        if count > 0 {
            info!(sessions, calls, "signaling goes on where it was");
        }
    }

    /// Carries out an input, unless the journal is too far behind for more to come in; then it is handed back.
    pub(super) fn take(&mut self, input: Input) -> Result<(), Input> {
        if !self.held.has_room() {
            return Err(input);
        }
        self.take_anyway(input);
        Ok(())
    }

    /// As [`Self::take`], for what does not wait.
    pub(super) fn take_anyway(&mut self, input: Input) {
        let now = self.now();
        self.input(now, input);
        self.drain(now);
        self.inputs += 1;
        if self.hub.has_changes() {
            if self.inputs >= TURN {
                self.end_turn();
            }
            return self.ring();
        }
        if self.held.is_clear() {
            let mut effects = std::mem::take(&mut self.effects);
            self.carry_out(now, effects.drain(..));
            if self.effects.is_empty() {
                // Its memory is used again.
                self.effects = effects;
            }
        }
        let is_sooner = self.due().is_some_and(|due| self.alarm.is_none_or(|alarm| due < alarm));
        if is_sooner || !self.asked.is_empty() {
            self.ring();
        }
    }

    /// What tells when there may be room again. To be asked for before [`Self::take`], so that nothing is missed.
    pub(super) fn progress(&self) -> Option<watch::Receiver<Progress>> {
        self.held.watch()
    }

    /// Counters and present numbers of the hub.
    pub(super) fn stats(&self) -> Stats {
        self.hub.stats()
    }

    fn ring(&self) {
        // Where it was rung already, the turn to come has this as well.
        let _ = self.bell.try_send(());
    }

    /// Ends a turn: effects wait for the journal, those that waited long enough are carried out. Returns when the
    /// next one is due by itself.
    fn end_turn(&mut self) -> Option<tokio::time::Instant> {
        let now = self.now();
        self.inputs = 0;
        if self.hub.poll_timeout().is_some_and(|at| at <= now.mono) {
            self.hub.handle_timeout(now);
        }
        self.drain(now);
        self.held.put(&mut self.hub, std::mem::take(&mut self.effects), now);
        while let Some(effects) = self.held.next() {
            self.carry_out(now, effects);
        }
        for asked in self.asked.drain(..) {
            let _ = asked.send(());
        }
        self.alarm = self.due();
        self.alarm.map(|at| (self.start + at).into())
    }

    /// When there is something to do although nothing comes in.
    fn due(&self) -> Option<Duration> {
        let later = self.hub.poll_later().filter(|_| self.held.has_room());
        [self.hub.poll_timeout(), later].into_iter().flatten().min()
    }

    fn now(&self) -> Now {
        Now { mono: self.start.elapsed(), unix: unix() }
    }

    fn input(&mut self, now: Now, input: Input) {
        match input {
            Input::Connect { id, connect, link } => {
                self.links.insert(id, link);
                self.hub.handle_connect(now, id, *connect);
            }
            Input::Frame { id, text } => self.hub.handle_frame(now, id, &text),
            Input::Oversized { id } => self.hub.handle_oversized(now, id),
            Input::Binary { id, size } => self.hub.handle_binary(now, id, size),
            Input::Pong { id, seq } => self.hub.handle_pong(now, id, seq),
            Input::Disconnect { id } => {
                self.links.remove(&id);
                self.hub.handle_disconnect(now, id);
            }
            Input::Call { who, action, answer } => {
                let result = self.hub.handle_call(now, &who, action);
                self.drain(now);
                self.effects.push(Effect::Answer(answer, result));
            }
            Input::Consultation { who, action, answer } => {
                let result = self.hub.handle_consultation(now, &who, action);
                self.drain(now);
                self.effects.push(Effect::Admit(answer, Box::new(result)));
            }
            Input::Timeline { who, id, answer } => {
                let _ = answer.send(self.hub.handle_timeline(now, &who, &id));
            }
            Input::Relay { news, done } => {
                news.into_iter().for_each(|news| self.relay_news(now, news));
                if let Some(done) = done {
                    self.hub.hasten_timelines();
                    self.effects.push(Effect::Done(done));
                }
            }
            Input::Reconfigure(settings) => {
                self.hub.reconfigure(settings.limits.clone(), protects_rooms(&settings));
                self.settings = settings;
            }
            Input::Answer(done) => self.asked.push(done),
            Input::Drain(done) => {
                self.hub.handle_drain(now);
                self.drain(now);
                self.effects.push(Effect::Done(done));
            }
        }
    }

    fn relay_news(&mut self, now: Now, News { at, user, scope, step }: News) {
        let user = access::user_of(&user).into();
        self.hub.handle_relay_news(
            now,
            &RelayNews { user, scope, at: at.saturating_duration_since(self.start), step },
        );
    }

    /// Takes what the hub asks for until it asks for nothing more; what it needs an answer to gets one at once.
    fn drain(&mut self, now: Now) {
        while let Some(output) = self.hub.poll_output() {
            match output {
                Output::Authenticate { conn, token } => {
                    let checked = access::check(&self.settings, &token, now.unix);
                    self.hub.handle_identity(now, conn, checked.map_err(|denied| denied.words().1));
                }
                Output::NeedIce { session, lease, user, may_relay, asked } => {
                    let name = lease_name(session, lease);
                    let ice = ice::for_session(&self.settings, now.unix, &name, &user, may_relay);
                    self.hub.handle_ice(now, session, asked, &ice);
                }
                Output::Revoke { user, scope, until } => {
                    if let Some(revoke) = &self.revoke {
                        revoke(ice::scoped_id(&user, &scope), until);
                    }
                }
                Output::Log(line) => debug!("{line}"),
                output => self.effects.push(Effect::Output(output)),
            }
        }
    }

    fn carry_out(&mut self, now: Now, effects: impl IntoIterator<Item = Effect>) {
        let mut slow = Vec::new();
        for effect in effects {
            match effect {
                Effect::Output(output) => self.output(output, &mut slow),
                Effect::Answer(answer, result) => drop(answer.send(result)),
                Effect::Admit(answer, result) => drop(answer.send(*result)),
                Effect::Done(done) => drop(done.send(())),
            }
        }
        if slow.is_empty() {
            return;
        }
        for id in slow {
            self.hub.handle_disconnect(now, id);
        }
        self.drain(now);
        self.ring();
    }

    fn output(&mut self, output: Output, slow: &mut Vec<ConnId>) {
        match output {
            Output::Send { conn, text } => {
                let bound = SOCKET_BYTES + self.settings.limits.outbox_bytes;
                if self.links.get(&conn).is_some_and(|link| !link.push(&text, bound)) {
                    debug!(conn = conn.0, "slow consumer cut");
                    self.links.remove(&conn);
                    slow.push(conn);
                }
            }
            Output::Ping { conn, seq } => {
                if let Some(link) = self.links.get(&conn) {
                    // That there is no room means frames wait already; the next ping asks again.
                    link.command(Command::Ping(seq));
                }
            }
            Output::Close { conn, code, reason } => {
                debug!(conn = conn.0, code, reason, "socket closed");
                if let Some(link) = self.links.remove(&conn) {
                    link.command(Command::Close(code, reason));
                }
            }
            // Answered where they came up.
            Output::Authenticate { .. } | Output::NeedIce { .. } | Output::Revoke { .. } | Output::Log(_) => {
            }
        }
    }
}

fn protects_rooms(settings: &Settings) -> bool {
    settings.access == Access::Token
}

/// Ends turns when the bell rings, when something is due, and when the journal has come further.
async fn end_turns(
    exchange: Weak<Mutex<Exchange>>,
    mut rung: mpsc::Receiver<()>,
    mut progress: Option<watch::Receiver<Progress>>,
) {
    let mut alarm = pin!(sleep_until(tokio::time::Instant::now()));
    while let Some(exchange) = exchange.upgrade() {
        let due = lock(&exchange).end_turn();
        drop(exchange);
        if due.is_some_and(|due| due <= Instant::now().into()) {
            // Messages go between, however much is due.
            yield_now().await;
            continue;
        }
        if let Some(due) = due {
            alarm.as_mut().reset(due);
        }
        tokio::select! {
            rung = rung.recv() => if rung.is_none() { return },
            () = &mut alarm, if due.is_some() => {}
            () = changed(&mut progress) => {}
        }
    }
}

/// Returns when the journal has come further.
async fn changed(progress: &mut Option<watch::Receiver<Progress>>) {
    if let Some(progress) = progress
        && progress.changed().await.is_ok()
    {
        return;
    }
    // There is none, or whoever wrote it has ended.
    std::future::pending().await
}
