//! Single STUN requests built with the `stun` crate, where the `turn` crate's client does not tell
//! enough: Binding, the challenge, refusals, and relays on IPv6.

use std::sync::Arc;
use std::time::Duration;

use rtc_stun::agent::TransactionId;
use rtc_stun::attributes::{
    ATTR_LIFETIME, ATTR_NONCE, ATTR_REALM, ATTR_REQUESTED_ADDRESS_FAMILY, ATTR_REQUESTED_TRANSPORT,
    ATTR_USERNAME, ATTR_XOR_RELAYED_ADDRESS, AttrType,
};
use rtc_stun::error_code::ErrorCodeAttribute;
use rtc_stun::fingerprint::FINGERPRINT;
use rtc_stun::integrity::MessageIntegrity;
use rtc_stun::message::{
    BINDING_REQUEST, CLASS_REQUEST, CLASS_SUCCESS_RESPONSE, Getter, METHOD_ALLOCATE, METHOD_REFRESH, Message,
    MessageType, Method, Setter,
};
use rtc_stun::textattrs::TextAttribute;
use rtc_stun::xoraddr::XorMappedAddress;
use tokio::time::{Instant, timeout_at};
use webrtc_util::Conn;

use super::report::Problem;

/// Retransmission over UDP; a stream just ignores the repetition of an idempotent request's id.
const RETRY: Duration = Duration::from_millis(400);
/// REQUESTED-TRANSPORT: UDP.
const UDP: [u8; 4] = [17, 0, 0, 0];
/// REQUESTED-ADDRESS-FAMILY: IPv6 (RFC 8656 §18.6).
const IPV6: [u8; 4] = [2, 0, 0, 0];

/// A connection of either kind.
pub(super) type Connection = Arc<dyn Conn + Send + Sync>;

/// User name and password.
#[derive(Clone)]
pub(super) struct Login {
    pub(super) username: String,
    pub(super) password: String,
}

/// A server at the other end of a connection.
pub(super) struct Server<'a> {
    pub(super) conn: &'a Connection,
    /// As printed: `UDP 192.0.2.1:3478`.
    pub(super) place: &'a str,
    pub(super) patience: Duration,
    pub(super) reliable: bool,
}

/// What a server answered to an authenticated Allocate.
pub(super) enum Answer {
    /// The relayed address.
    Allocated(std::net::SocketAddr),
    /// The error code and reason.
    Refused(u16, String),
}

impl Server<'_> {
    /// Our address as the server sees it.
    pub(super) async fn binding(&self) -> Result<std::net::SocketAddr, Problem> {
        let request = build(vec![Box::new(BINDING_REQUEST), Box::new(FINGERPRINT)])?;
        let answer = self.transact(&request).await?;
        let mut mapped = XorMappedAddress::default();
        mapped.get_from(&answer).map_err(|_| self.wrong("a Binding answer without XOR-MAPPED-ADDRESS"))?;
        Ok(std::net::SocketAddr::new(mapped.ip, mapped.port))
    }

    /// Allocates, with the challenge before it.
    pub(super) async fn allocate(&self, login: &Login, ipv6: bool) -> Result<Answer, Problem> {
        let unsigned = build(allocate_attributes(ipv6))?;
        let challenge = self.transact(&unsigned).await?;
        match error_of(&challenge) {
            Some((401, _)) => {}
            Some((code, reason)) => return Ok(Answer::Refused(code, reason)),
            None => {
                return Err(Problem::new(
                    format!("{} allocates without credentials", self.place),
                    "an open relay will be abused: switch authentication on",
                ));
            }
        }
        let signature = self.sign(&challenge, login)?;
        let mut attributes = allocate_attributes(ipv6);
        attributes.extend(signature());
        let answer = self.transact(&build(attributes)?).await?;
        if let Some((code, reason)) = error_of(&answer) {
            return Ok(Answer::Refused(code, reason));
        }
        let mut relayed = XorMappedAddress::default();
        relayed
            .get_from_as(&answer, ATTR_XOR_RELAYED_ADDRESS)
            .map_err(|_| self.wrong("an Allocate answer without XOR-RELAYED-ADDRESS"))?;
        self.delete(signature()).await?;
        Ok(Answer::Allocated(std::net::SocketAddr::new(relayed.ip, relayed.port)))
    }

    /// What goes into every authenticated request after this challenge.
    fn sign<'a>(
        &self,
        challenge: &Message,
        login: &'a Login,
    ) -> Result<impl Fn() -> Vec<Box<dyn Setter>> + use<'a>, Problem> {
        let text = |kind: AttrType| {
            TextAttribute::get_from_as(challenge, kind)
                .map(|value| value.text)
                .map_err(|_| self.wrong("a 401 without REALM and NONCE"))
        };
        let (realm, nonce) = (text(ATTR_REALM)?, text(ATTR_NONCE)?);
        Ok(move || -> Vec<Box<dyn Setter>> {
            let (username, password) = (login.username.clone(), login.password.clone());
            let integrity =
                MessageIntegrity::new_long_term_integrity(username.clone(), realm.clone(), password);
            vec![
                Box::new(TextAttribute::new(ATTR_USERNAME, username)),
                Box::new(TextAttribute::new(ATTR_REALM, realm.clone())),
                Box::new(TextAttribute::new(ATTR_NONCE, nonce.clone())),
                Box::new(integrity),
                Box::new(FINGERPRINT),
            ]
        })
    }

    async fn delete(&self, signature: Vec<Box<dyn Setter>>) -> Result<(), Problem> {
        let mut attributes = request(METHOD_REFRESH);
        attributes.push(Box::new(Raw(ATTR_LIFETIME, [0; 4])));
        attributes.extend(signature);
        let answer = self.transact(&build(attributes)?).await?;
        match error_of(&answer) {
            None => Ok(()),
            Some((code, reason)) => Err(self.wrong(&format!("{code} {reason} to a Refresh with lifetime 0"))),
        }
    }

    /// Sends a request until it is answered.
    async fn transact(&self, request: &Message) -> Result<Message, Problem> {
        let deadline = Instant::now() + self.patience;
        let mut buffer = vec![0; 2048];
        loop {
            self.conn.send(&request.raw).await.map_err(|error| self.broken(&error))?;
            let wait = if self.reliable { deadline } else { deadline.min(Instant::now() + RETRY) };
            while let Ok(received) = timeout_at(wait, self.conn.recv(&mut buffer)).await {
                let len = received.map_err(|error| self.broken(&error))?;
                if let Some(answer) = parse(&buffer[..len], request) {
                    return Ok(answer);
                }
            }
            if Instant::now() >= deadline {
                return Err(Problem::new(
                    format!("no answer on {}", self.place),
                    "is the server running, and does a firewall drop this port?",
                ));
            }
        }
    }

    fn broken(&self, error: &webrtc_util::Error) -> Problem {
        Problem::new(
            format!("{}: {error}", self.place),
            "is the server running, and does it listen on this address and port?",
        )
    }

    fn wrong(&self, what: &str) -> Problem {
        Problem::new(format!("{} sends {what}", self.place), "is this a TURN server? See its log")
    }
}

fn allocate_attributes(ipv6: bool) -> Vec<Box<dyn Setter>> {
    let mut attributes = request(METHOD_ALLOCATE);
    attributes.push(Box::new(Raw(ATTR_REQUESTED_TRANSPORT, UDP)));
    if ipv6 {
        attributes.push(Box::new(Raw(ATTR_REQUESTED_ADDRESS_FAMILY, IPV6)));
    }
    attributes
}

fn request(method: Method) -> Vec<Box<dyn Setter>> {
    vec![Box::new(MessageType::new(method, CLASS_REQUEST))]
}

fn build(attributes: Vec<Box<dyn Setter>>) -> Result<Message, Problem> {
    let mut all: Vec<Box<dyn Setter>> = vec![Box::new(TransactionId::new())];
    all.extend(attributes);
    let mut message = Message::new();
    message.build(&all).map_err(|error| {
        Problem::new(format!("these credentials do not fit into a request: {error}"), "correct them")
    })?;
    Ok(message)
}

fn parse(bytes: &[u8], request: &Message) -> Option<Message> {
    let mut message = Message { raw: bytes.to_vec(), ..Message::new() };
    message.decode().ok()?;
    (message.transaction_id == request.transaction_id).then_some(message)
}

/// The error of an answer; `None` when it is a success.
fn error_of(answer: &Message) -> Option<(u16, String)> {
    if answer.typ.class == CLASS_SUCCESS_RESPONSE {
        return None;
    }
    let mut error = ErrorCodeAttribute::default();
    match error.get_from(answer) {
        Ok(()) => Some((error.code.0, String::from_utf8_lossy(&error.reason).into_owned())),
        Err(_) => Some((0, String::from("an error without ERROR-CODE"))),
    }
}

/// An attribute of four bytes.
struct Raw(AttrType, [u8; 4]);

impl Setter for Raw {
    fn add_to(&self, message: &mut Message) -> Result<(), rtc_stun::Error> {
        message.add(self.0, &self.1);
        Ok(())
    }
}
