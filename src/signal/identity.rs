//! Who is on the other end of a socket, and when two sockets are the same person.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What a token, or the lack of one, says about a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The user; quotas count on it.
    pub user: Arc<str>,
    /// What others call the user.
    pub name: Option<Arc<str>>,
    /// The role a token gives.
    pub role: Option<Arc<str>>,
    /// The rooms a token names.
    pub rooms: Rooms,
    /// What a token allows.
    pub grants: Grants,
    /// The name of a ticket, which opens one session.
    #[serde(skip)]
    pub ticket: Option<Box<str>>,
    /// Unix seconds at which the token ends.
    pub expires_at: Option<u64>,
    /// Whether there is no token.
    pub is_guest: bool,
    /// Whether several people hold the same token, as with an invite link: it opens a room, but says
    /// nothing about who comes.
    pub is_shared: bool,
    /// Whether relay credentials are handed out.
    pub may_relay: bool,
}

impl Identity {
    /// Somebody without a token.
    #[must_use]
    pub fn guest(user: impl Into<Arc<str>>, may_relay: bool) -> Self {
        Self {
            user: user.into(),
            name: None,
            role: None,
            rooms: Rooms::Any,
            grants: Grants::ALL,
            ticket: None,
            expires_at: None,
            is_guest: true,
            is_shared: false,
            may_relay,
        }
    }

    /// Somebody who has not shown a token yet where one is needed: may connect, and nothing else.
    #[must_use]
    pub fn nobody() -> Self {
        let rooms = Rooms::Named(Arc::new([]));
        Self { rooms, grants: Grants::from_words([]), ..Self::guest("nobody", false) }
    }

    /// Whether this is [`Self::nobody`].
    #[must_use]
    pub fn is_nobody(&self) -> bool {
        self.is_guest && matches!(&self.rooms, Rooms::Named(rooms) if rooms.is_empty())
    }

    /// Whether two sockets with this user are one person.
    #[must_use]
    pub fn names_a_person(&self) -> bool {
        !self.is_guest && !self.is_shared
    }

    /// Whether the token's role lets see what concerns others. One for some rooms only says nothing about the others.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.names_a_person() && self.role.as_deref() == Some("admin") && self.rooms.contains("*")
    }

    /// The bearer of a token without restrictions.
    #[must_use]
    pub fn member(user: impl Into<Arc<str>>) -> Self {
        Self { is_guest: false, ..Self::guest(user, true) }
    }
}

/// The rooms an identity may enter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rooms {
    /// All; the token names none.
    Any,
    /// Exactly these.
    Named(Arc<[String]>),
}

impl Rooms {
    /// Whether `room` may be entered.
    #[must_use]
    pub fn contains(&self, room: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Named(rooms) => rooms.iter().any(|r| r == room || r == "*"),
        }
    }

    /// Whether `room` is named, which makes it a protected room.
    #[must_use]
    pub fn names(&self, room: &str) -> bool {
        match self {
            Self::Any => false,
            Self::Named(rooms) => rooms.iter().any(|r| r == room),
        }
    }
}

/// What an identity may do in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grants {
    /// Enter rooms.
    pub join: bool,
    /// Send descriptions and candidates.
    pub signal: bool,
    /// Send chat.
    pub chat: bool,
    /// Send others out of the room, and mute them.
    pub moderate: bool,
}

impl Grants {
    /// Everything but to moderate, which is what a token without the claim gives.
    pub const ALL: Self = Self { join: true, signal: true, chat: true, moderate: false };

    /// Reads the claim; words that are not known yet are ignored.
    #[must_use]
    pub fn from_words<'a>(words: impl IntoIterator<Item = &'a str>) -> Self {
        let mut grants = Self { join: false, signal: false, chat: false, moderate: false };
        for word in words {
            match word {
                "join" => grants.join = true,
                "signal" => grants.signal = true,
                "chat" => grants.chat = true,
                "moderate" => grants.moderate = true,
                "*" => grants = Self { moderate: true, ..Self::ALL },
                _ => {}
            }
        }
        grants
    }
}

/// What tells whether two raw sockets belong to one client.
///
/// A raw socket (seed 000) says nothing about itself, yet its own held message must not come back
/// to its next socket, and two tabs of one browser must still be able to call each other. So the
/// key only says who *may* be the same; whether it *is* the same follows from life: while the older
/// socket answers pings the two are different clients, once it is dead the younger one is its
/// successor. From the strongest sign to the weakest: the token's user; a name the page gives
/// itself (`?client=`); the browser's cookie, which survives a change of network; the address with
/// `User-Agent` and `Origin`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientKey {
    /// The token's user.
    pub user: Option<Arc<str>>,
    /// The name the page gives itself.
    pub declared: Option<Box<str>>,
    /// The cookie the browser came with.
    pub cookie: Option<Box<str>>,
    /// The cookie it was given because it came without one.
    pub issued: Option<Box<str>>,
    /// Digest of address, `User-Agent` and `Origin`.
    pub traits: u64,
    /// Whether there is an `Origin`: a browser, which answers pings by itself.
    pub is_browser: bool,
}

impl ClientKey {
    /// Whether `younger` may be the next socket of this client.
    #[must_use]
    pub fn may_be(&self, younger: &Self) -> bool {
        let other = younger;
        if self.user.is_some() || other.user.is_some() {
            return self.user == other.user && declared_agree(self, other);
        }
        if self.declared.is_some() || other.declared.is_some() {
            return self.declared == other.declared;
        }
        if other.cookie.is_some() {
            return other.cookie == self.cookie || other.cookie == self.issued;
        }
        // A browser that came with a cookie once does so again.
        self.cookie.is_none() && self.traits == other.traits
    }

    /// Whether a socket of this client that stays silent is dead rather than never read: browsers
    /// answer pings by themselves, a bare test client only while it reads.
    #[must_use]
    pub fn is_strong(&self) -> bool {
        self.user.is_some() || self.declared.is_some() || self.is_browser
    }
}

/// One user's pages that name themselves are told apart by their names.
fn declared_agree(a: &ClientKey, b: &ClientKey) -> bool {
    match (&a.declared, &b.declared) {
        (Some(a), Some(b)) => a == b,
        (None, _) | (_, None) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(user: Option<&str>, declared: Option<&str>, cookie: Option<&str>, traits: u64) -> ClientKey {
        ClientKey {
            user: user.map(Arc::from),
            declared: declared.map(Box::from),
            cookie: cookie.map(Box::from),
            issued: None,
            traits,
            is_browser: false,
        }
    }

    #[test]
    fn the_strongest_sign_decides() {
        assert!(key(Some("a"), None, None, 1).may_be(&key(Some("a"), None, None, 2)));
        assert!(!key(Some("a"), None, None, 1).may_be(&key(Some("b"), None, None, 1)));
        assert!(!key(Some("a"), None, None, 1).may_be(&key(None, None, None, 1)));
        assert!(!key(None, Some("x"), Some("c"), 1).may_be(&key(None, Some("y"), Some("c"), 1)));
        assert!(key(None, None, Some("c"), 1).may_be(&key(None, None, Some("c"), 2)), "another network");
        assert!(!key(None, None, Some("c"), 1).may_be(&key(None, None, Some("d"), 1)), "same network");
        assert!(key(None, None, None, 1).may_be(&key(None, None, None, 1)));
        let first = ClientKey { issued: Some("c".into()), ..key(None, None, None, 1) };
        assert!(first.may_be(&key(None, None, Some("c"), 2)), "the cookie came back");
        assert!(first.may_be(&key(None, None, None, 1)), "no cookies at all");
        assert!(!key(None, None, None, 1).may_be(&key(None, None, None, 2)));
    }
}
