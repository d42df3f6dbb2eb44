//! Checks a request's user name and integrity against time-limited credentials and static users.

use std::collections::HashMap;
use std::time::Duration;

use super::secret::Secrets;
use crate::stun::{IntegrityKey, Message};

/// Longest USERNAME in bytes (RFC 8489 §14.3).
const MAX_USERNAME: usize = 508;

/// Who may allocate. Replaced as a whole when the configuration is read again.
#[derive(Clone, Default)]
pub struct Verifier {
    /// Secrets of the time-limited credentials.
    pub secrets: Secrets,
    /// Static users: name to password.
    pub users: HashMap<Box<str>, Box<str>>,
    /// A time-limited credential that expires further away than this is refused.
    pub max_ttl: Duration,
}

/// A request whose integrity was right.
#[derive(Clone)]
pub struct Authenticated {
    /// The key that signs the replies.
    pub key: IntegrityKey,
    /// The user that quotas and usage count on: the id without its session, or a static user's name.
    pub user: Box<str>,
    /// When the credential ends, in Unix seconds; `None` for a static user.
    pub expires_at: Option<u64>,
}

/// Which step of the authentication failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthFailure {
    /// Neither a static user nor `expiry:id` or `id:expiry`; or too long.
    UnknownUser,
    /// A time-limited credential that ended `by` seconds ago.
    Expired {
        /// Seconds since the expiry.
        by: u64,
    },
    /// Expires further away than `max_ttl`.
    TooFarAhead,
    /// The integrity does not match under any secret or the user's password.
    WrongPassword,
}

impl Verifier {
    /// Checks `message`, sent by `username`, at Unix time `now`.
    ///
    /// # Errors
    /// The step that failed.
    pub fn authenticate(
        &self,
        message: &Message<'_>,
        username: &str,
        realm: &str,
        now: u64,
    ) -> Result<Authenticated, AuthFailure> {
        if username.len() > MAX_USERNAME {
            return Err(AuthFailure::UnknownUser);
        }
        if let Some(password) = self.users.get(username) {
            let key = IntegrityKey::long_term(username, realm, password);
            return match message.verify_integrity(&key) {
                true => Ok(Authenticated { key, user: username.into(), expires_at: None }),
                false => Err(AuthFailure::WrongPassword),
            };
        }
        self.authenticate_time_limited(message, username, realm, now)
    }

    fn authenticate_time_limited(
        &self,
        message: &Message<'_>,
        username: &str,
        realm: &str,
        now: u64,
    ) -> Result<Authenticated, AuthFailure> {
        if self.secrets.is_empty() {
            return Err(AuthFailure::UnknownUser);
        }
        let (expires_at, id) = parse_username(username).ok_or(AuthFailure::UnknownUser)?;
        if expires_at <= now {
            return Err(AuthFailure::Expired { by: now - expires_at });
        }
        if expires_at - now > self.max_ttl.as_secs() {
            return Err(AuthFailure::TooFarAhead);
        }
        self.secrets
            .passwords(username)
            .map(|password| IntegrityKey::long_term(username, realm, &password))
            .find(|key| message.verify_integrity(key))
            .map(|key| Authenticated { key, user: user_of(id).into(), expires_at: Some(expires_at) })
            .ok_or(AuthFailure::WrongPassword)
    }
}

/// Expiry and id of a time-limited user name. The first part is the expiry if it is all digits; only
/// otherwise `id:expiry` is tried, as coturn does.
fn parse_username(username: &str) -> Option<(u64, &str)> {
    let (first, rest) = username.split_once(':').unwrap_or((username, ""));
    if is_number(first) {
        return Some((first.parse().ok()?, rest));
    }
    let (id, last) = username.rsplit_once(':')?;
    is_number(last).then(|| last.parse().ok().map(|expiry| (expiry, id)))?
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The user in an id: all before the last dot, see [`super::id`].
fn user_of(id: &str) -> &str {
    id.rsplit_once('.').map_or(id, |(user, _session)| user)
}

#[cfg(test)]
mod tests {
    use super::super::{id, mint};
    use super::*;
    use crate::stun::{AttributeType, Class, MessageWriter, Method, TransactionId};

    const NOW: u64 = 1_700_000_000;
    const REALM: &str = "turnkey";

    fn verifier(secrets: &[&str]) -> Verifier {
        Verifier {
            secrets: Secrets::new(secrets),
            users: HashMap::from([("static".into(), "pass".into())]),
            max_ttl: Duration::from_secs(86_400),
        }
    }

    fn check(verifier: &Verifier, username: &str, password: &str) -> Result<Authenticated, AuthFailure> {
        let mut buffer = [0; 1024];
        let key = IntegrityKey::long_term(username, REALM, password);
        let len = MessageWriter::new(&mut buffer, Class::Request, Method::ALLOCATE, TransactionId([7; 12]))
            .attribute(AttributeType::USERNAME, username.as_bytes())
            .integrity(&key)
            .finish()
            .expect("fits");
        let message = Message::parse(&buffer[..len]).expect("valid");
        verifier.authenticate(&message, username, REALM, NOW)
    }

    fn minted(secret: &str, ttl: u64, id: &str) -> (String, String) {
        let credential = mint(&Secrets::new([secret]), NOW, Duration::from_secs(ttl), id).expect("valid");
        (credential.username, credential.password)
    }

    #[test]
    fn minted_credentials_verify_and_count_on_the_user() {
        let (username, password) = minted("s", 60, &id("alice", Some("session9")));
        let who =
            check(&verifier(&["s"]), &username, &password).map_err(|f| format!("{f:?}")).expect("valid");
        assert_eq!((&*who.user, who.expires_at), ("alice", Some(NOW + 60)));
        let (username, password) = minted("s", 60, &id("alice.smith", None));
        assert_eq!(
            &*check(&verifier(&["s"]), &username, &password).map(|who| who.user).unwrap_or_default(),
            "alice.smith"
        );
    }

    #[test]
    fn each_secret_of_a_rotation_verifies() {
        let (username, password) = minted("old", 60, "a");
        assert!(check(&verifier(&["new", "old"]), &username, &password).is_ok());
        assert_eq!(check(&verifier(&["new"]), &username, &password).err(), Some(AuthFailure::WrongPassword));
    }

    #[test]
    fn expiry_is_enforced_to_the_second_and_has_a_ceiling() {
        let v = verifier(&["s"]);
        let sign = |username: &str| Secrets::new(["s"]).passwords(username).next().expect("one secret");
        let at = |expiry: u64| {
            let username = format!("{expiry}:a");
            let password = sign(&username);
            check(&v, &username, &password).err()
        };
        assert_eq!(at(NOW + 1), None);
        assert_eq!(at(NOW), Some(AuthFailure::Expired { by: 0 }));
        assert_eq!(at(NOW - 5), Some(AuthFailure::Expired { by: 5 }));
        assert_eq!(at(NOW + 86_400), None);
        assert_eq!(at(NOW + 86_401), Some(AuthFailure::TooFarAhead));
        assert_eq!(at(u64::MAX), Some(AuthFailure::TooFarAhead));
    }

    #[test]
    fn both_orders_of_the_user_name_are_read_as_coturn_reads_them() {
        assert_eq!(parse_username("17:alice"), Some((17, "alice")));
        assert_eq!(parse_username("17"), Some((17, "")));
        assert_eq!(parse_username("alice:17"), Some((17, "alice")));
        assert_eq!(parse_username("17:99"), Some((17, "99")));
        assert_eq!(parse_username("a:b:17"), Some((17, "a:b")));
        for bad in ["alice", "", ":", "a:", ":a", "99999999999999999999:a", "a:-1"] {
            assert_eq!(parse_username(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn static_users_stand_beside_time_limited_ones() {
        let v = verifier(&["s"]);
        assert_eq!(&*check(&v, "static", "pass").map(|who| who.user).unwrap_or_default(), "static");
        assert_eq!(check(&v, "static", "wrong").err(), Some(AuthFailure::WrongPassword));
        assert_eq!(check(&v, "nobody", "pass").err(), Some(AuthFailure::UnknownUser));
        assert_eq!(check(&v, &"x".repeat(509), "pass").err(), Some(AuthFailure::UnknownUser));
    }
}
