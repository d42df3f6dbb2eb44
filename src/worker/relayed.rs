//! TCP relays of a worker (RFC 6062): listeners on relayed addresses, connections of peers, and the
//! clients' connections that are joined to them.
//!
//! Until a client binds its connection nothing is read from the peer, so what it sends waits in the
//! kernel's buffer and no more than fits there.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Token};

use super::connections::Connection;
use super::desk::Place;
use super::effects::refusal;
use super::run::Worker;
use crate::io::splice::{Flow, Pipe};
use crate::io::stream::Socket;
use crate::io::{Datagrams, SocketRef, tcp};
use crate::turn::{OpenError, PeerLink, RelayId};

/// Connections taken from a listener in one turn before others have theirs.
const ACCEPT_SHARE: usize = 16;

/// Reads of a joined connection, each way, before others have theirs.
const SHARE: usize = 4;

/// How long a connection waits that is over its bandwidth.
const PAUSE: Duration = Duration::from_millis(10);

/// A peer's connection.
enum Peer {
    /// Not established yet.
    Connecting(TcpStream),
    /// Established; the client may bind a connection to it.
    Waiting(TcpStream),
    /// Joined to a client's connection.
    Joined(Box<Joint>),
}

/// A peer's and a client's connection as one.
struct Joint {
    peer: TcpStream,
    client: Socket,
    to_peer: Pipe,
    to_client: Pipe,
    _place: Place,
}

/// The TCP relays of a worker.
#[derive(Default)]
pub(super) struct Relayed {
    listeners: HashMap<SocketRef, TcpListener>,
    peers: Vec<Option<Peer>>,
    /// Listeners that could not accept because descriptors or memory were short.
    pub(super) blocked: Vec<SocketRef>,
    /// Joined connections that are over their bandwidth.
    paused: Vec<SocketRef>,
    /// When those go on.
    resume: Option<Duration>,
}

impl Relayed {
    pub(super) fn has_listener(&self, name: SocketRef) -> bool {
        self.listeners.contains_key(&name)
    }

    /// Closes a listener.
    pub(super) fn close_listener(&mut self, name: SocketRef) {
        self.listeners.remove(&name);
    }

    fn pause(&mut self, name: SocketRef, now: Duration) {
        self.paused.push(name);
        self.resume.get_or_insert(now + PAUSE);
    }

    /// When [`Self::resumed`] has something.
    pub(super) fn resume_at(&self) -> Option<Duration> {
        self.resume
    }

    /// Connections that may try again.
    pub(super) fn resumed(&mut self, now: Duration) -> Vec<SocketRef> {
        if self.resume.take_if(|at| *at <= now).is_none() {
            return Vec::new();
        }
        let mut paused = std::mem::take(&mut self.paused);
        paused.sort_unstable();
        paused.dedup();
        paused
    }

    fn get_mut(&mut self, link: PeerLink) -> Option<&mut Peer> {
        self.peers.get_mut(link.0 as usize)?.as_mut()
    }

    fn put(&mut self, link: PeerLink, peer: Peer) {
        let index = link.0 as usize;
        if index >= self.peers.len() {
            self.peers.resize_with(index + 1, || None);
        }
        self.peers[index] = Some(peer);
    }

    fn take(&mut self, link: PeerLink) -> Option<Peer> {
        self.peers.get_mut(link.0 as usize)?.take()
    }
}

fn name_of(link: PeerLink) -> SocketRef {
    SocketRef::peer(link.0)
}

impl<D: Datagrams> Worker<D> {
    pub(super) fn open_listener(&mut self, relay: RelayId, bind: SocketAddr) -> Result<(), OpenError> {
        let name = self.name_of(relay);
        let mut listener = tcp::listen(bind).map_err(|e| refusal(&e))?;
        let token = Token(name.0 as usize);
        self.poll.registry().register(&mut listener, token, Interest::READABLE).map_err(|e| refusal(&e))?;
        self.relayed.listeners.insert(name, listener);
        Ok(())
    }

    /// Accepts the peers that have connected to a relayed address.
    pub(super) fn accept_peers(&mut self, name: SocketRef) {
        for _ in 0..ACCEPT_SHARE {
            let Some(listener) = self.relayed.listeners.get(&name) else { return };
            match listener.accept() {
                Ok((stream, peer)) => self.peer_accepted(name, stream, peer),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if tcp::is_of_one_connection(&e) => {}
                Err(_) => {
                    if !self.relayed.blocked.contains(&name) {
                        self.relayed.blocked.push(name);
                    }
                    return;
                }
            }
        }
        self.unfinished.push(name);
    }

    fn peer_accepted(&mut self, listener: SocketRef, mut stream: TcpStream, peer: SocketAddr) {
        let relay = self.relay_of(listener);
        if self.outgoing.is_full() {
            self.send();
        }
        let accepted = self.core.handle_peer_accepted(self.now, relay, peer, self.outgoing.stage());
        let Some((link, verdict)) = accepted else { return };
        match self.watch(&mut stream, name_of(link)) {
            Ok(()) => {
                self.relayed.put(link, Peer::Waiting(stream));
                self.carry_out(verdict, 0);
            }
            Err(_) => self.core.handle_peer_closed(link),
        }
        self.drain();
    }

    fn watch(&self, stream: &mut TcpStream, name: SocketRef) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let token = Token(name.0 as usize);
        self.poll.registry().register(stream, token, Interest::READABLE | Interest::WRITABLE)
    }

    /// Begins a connection from a relayed address to a peer.
    pub(super) fn connect_peer(&mut self, link: PeerLink, from: SocketAddr, to: SocketAddr) {
        let watched = tcp::connect(from, to).and_then(|mut stream| {
            self.watch(&mut stream, name_of(link))?;
            Ok(stream)
        });
        match watched {
            Ok(stream) => self.relayed.put(link, Peer::Connecting(stream)),
            Err(error) => {
                tracing::debug!(%error, "a relayed connection failed at once");
                self.tell_connected(link, false);
            }
        }
    }

    /// Gives up a connection that does not come about.
    pub(super) fn give_up_peer(&mut self, link: PeerLink) {
        self.relayed.take(link);
        self.tell_connected(link, false);
    }

    fn tell_connected(&mut self, link: PeerLink, is_connected: bool) {
        if self.outgoing.is_full() {
            self.send();
        }
        let reply = self.outgoing.stage();
        let verdict = self.core.handle_peer_connected(self.now, link, is_connected, reply);
        self.carry_out(verdict, 0);
    }

    /// Closes a connection of a peer, and the client's with it.
    pub(super) fn close_peer(&mut self, link: PeerLink) {
        self.relayed.take(link);
    }

    pub(super) fn serve_peer(&mut self, name: SocketRef) {
        let link = PeerLink(name.peer_index());
        match self.relayed.get_mut(link) {
            Some(Peer::Connecting(stream)) => match is_established(stream) {
                Ok(false) => {}
                Ok(true) => self.established(link),
                Err(_) => {
                    self.give_up_peer(link);
                    self.drain();
                }
            },
            Some(Peer::Waiting(stream)) if matches!(stream.take_error(), Ok(None)) => {}
            Some(Peer::Waiting(_)) => self.end_peer(link),
            Some(Peer::Joined(_)) => self.pump(link),
            None => {}
        }
    }

    fn established(&mut self, link: PeerLink) {
        if let Some(Peer::Connecting(stream)) = self.relayed.take(link) {
            self.relayed.put(link, Peer::Waiting(stream));
            self.tell_connected(link, true);
            self.drain();
        }
    }

    /// Joins a client's connection, from which the part `early` of the receive buffer was read already, to
    /// the peer's.
    pub(super) fn join(&mut self, client: SocketRef, link: PeerLink, early: Range<usize>) {
        // The answer leaves ahead of the data.
        self.send();
        let Some(connection) = self.connections.remove(client) else { return self.end_peer(link) };
        let Some(Peer::Waiting(peer)) = self.relayed.take(link) else { return self.end_peer(link) };
        let Connection { socket, writer, place, .. } = connection;
        let early = self.received.bytes(early).to_vec();
        let mut joint = Joint {
            peer,
            client: socket,
            to_peer: Pipe::new(early),
            to_client: Pipe::new(writer.into_waiting()),
            _place: place,
        };
        let token = Token(name_of(link).client_side().0 as usize);
        let both = Interest::READABLE | Interest::WRITABLE;
        if self.poll.registry().reregister(&mut joint.client, token, both).is_err() {
            return self.end_peer(link);
        }
        self.relayed.put(link, Peer::Joined(Box::new(joint)));
        self.pump(link);
    }

    /// Moves what can be moved between a peer and its client.
    fn pump(&mut self, link: PeerLink) {
        if self.received.vacant() == 0 {
            self.flush();
        }
        let Some((_, scratch)) = self.received.claim() else { return };
        let Some(Peer::Joined(joint)) = self.relayed.get_mut(link) else { return self.received.unclaim() };
        let Joint { peer, client, to_peer, to_client, .. } = &mut **joint;
        let shares = self.core.stream_shares(self.now, link, SHARE);
        let up = to_peer.pump(client, peer, scratch, shares[0]);
        let down = to_client.pump(peer, client, scratch, shares[1]);
        self.received.unclaim();
        let (Ok((up, sent)), Ok((down, received))) = (up, down) else { return self.end_peer(link) };
        self.core.count_streamed(self.now, link, [sent, received]);
        if up == Flow::Ended && down == Flow::Ended {
            self.end_peer(link);
        } else if (up == Flow::More && shares[0] > 0) || (down == Flow::More && shares[1] > 0) {
            self.unfinished.push(name_of(link));
        } else if shares.contains(&0) {
            self.relayed.pause(name_of(link), self.now.mono);
        }
    }

    /// A peer's connection has ended by itself.
    fn end_peer(&mut self, link: PeerLink) {
        self.relayed.take(link);
        self.core.handle_peer_closed(link);
        self.drain();
    }
}

/// Whether a connection that was begun is established by now.
fn is_established(stream: &TcpStream) -> io::Result<bool> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    match stream.peer_addr() {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotConnected => Ok(false),
        Err(e) => Err(e),
    }
}
