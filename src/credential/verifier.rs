//! Checks who sent a request and its integrity: time-limited credentials, static users, access tokens.

use std::time::Duration;

use super::failure::AuthFailure;
use super::known::KnownKeys;
use super::secret::Secrets;
use super::token::ThirdParty;
use super::users::{Proof, Users};
use crate::stun::{IntegrityKey, Message, PasswordAlgorithm};

/// Longest USERNAME in bytes (RFC 8489 §14.3).
const MAX_USERNAME: usize = 508;

/// Who may allocate. Replaced as a whole when the configuration is read again.
#[derive(Clone, Default)]
pub struct Verifier {
    /// Secrets of the time-limited credentials.
    pub secrets: Secrets,
    /// Static users.
    pub users: Users,
    /// A time-limited credential that expires further away than this is refused.
    pub max_ttl: Duration,
    /// Who may let others in with access tokens (RFC 7635).
    pub third_party: Option<ThirdParty>,
}

/// By what a request names its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name<'a> {
    /// USERNAME (RFC 8489 §14.3).
    Plain(&'a str),
    /// USERHASH (RFC 8489 §14.4).
    Hash(&'a [u8; 32]),
}

/// Who a request claims to be from.
#[derive(Clone, Copy)]
pub struct Claim<'a> {
    /// The sender.
    pub name: Name<'a>,
    /// How the password becomes a key.
    pub algorithm: PasswordAlgorithm,
    /// ACCESS-TOKEN (RFC 7635 §6.2).
    pub token: Option<&'a [u8]>,
}

/// A request whose integrity was right.
#[derive(Clone)]
pub struct Authenticated {
    /// The key that signs the replies.
    pub key: IntegrityKey,
    /// The name in full, also where a hash was sent.
    pub username: Box<str>,
    /// The user that quotas and usage count on: the id without its session, a static user's name, or the key
    /// of an access token.
    pub user: Box<str>,
    /// When the credential ends; `None` for a static user.
    pub expiry: Option<Expiry>,
}

/// The end of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// Unix seconds.
    pub at: u64,
    /// Whether an allocation ends with it in any case (RFC 7635 §9).
    pub ends_allocation: bool,
}

impl Verifier {
    /// Checks `message`, sent under `claim`, at Unix time `now`. `known` holds keys of these secrets and this
    /// realm only.
    ///
    /// # Errors
    /// The step that failed.
    pub fn authenticate(
        &self,
        message: &Message<'_>,
        claim: &Claim<'_>,
        realm: &str,
        now: u64,
        known: &mut KnownKeys,
    ) -> Result<Authenticated, AuthFailure> {
        let sent = Sent { message, algorithm: claim.algorithm, realm, now };
        let issued;
        let username = match claim.name {
            Name::Plain(name) if name.len() <= MAX_USERNAME => name,
            Name::Plain(_) => return Err(AuthFailure::UnknownUser),
            Name::Hash(hash) => match self.users.name_of(hash) {
                Some(name) => name,
                None => {
                    issued = self.secrets.name_of(hash).ok_or(AuthFailure::UnknownHash)?;
                    &*issued
                }
            },
        };
        match (claim.token, &self.third_party) {
            (Some(token), Some(third_party)) => by_token(third_party, &sent, username, token),
            _ => match self.users.proof(username) {
                Some(proof) => static_user(&sent, username, proof),
                None => self.time_limited(&sent, username, known),
            },
        }
    }

    /// Whether the time-limited credentials that `username` is made with were taken back.
    #[must_use]
    pub fn is_revoked(&self, username: &str) -> bool {
        id_of(username).is_some_and(|id| self.secrets.is_revoked(id))
    }

    fn time_limited(
        &self,
        sent: &Sent<'_>,
        username: &str,
        known: &mut KnownKeys,
    ) -> Result<Authenticated, AuthFailure> {
        if self.secrets.is_empty() {
            return Err(AuthFailure::UnknownUser);
        }
        let (expires_at, id) = parse_username(username).ok_or(AuthFailure::UnknownUser)?;
        if expires_at <= sent.now {
            return Err(AuthFailure::Expired { by: sent.now - expires_at });
        }
        if expires_at - sent.now > self.max_ttl.as_secs() {
            return Err(AuthFailure::TooFarAhead);
        }
        let key = match known.find(username, sent.algorithm).filter(|key| sent.message.verify(key)) {
            Some(key) => key.clone(),
            None => {
                let mut passwords = self.secrets.passwords(username);
                let key = passwords.find_map(|password| sent.verify(username, &password));
                let key = key.ok_or(AuthFailure::WrongPassword)?;
                known.note(username, sent.algorithm, &key);
                key
            }
        };
        if self.secrets.is_revoked(id) {
            return Err(AuthFailure::Revoked);
        }
        let expiry = Some(Expiry { at: expires_at, ends_allocation: false });
        Ok(Authenticated { key, username: username.into(), user: user_of(id).into(), expiry })
    }
}

/// A request, and what its key is made with.
struct Sent<'a> {
    message: &'a Message<'a>,
    algorithm: PasswordAlgorithm,
    realm: &'a str,
    now: u64,
}

impl Sent<'_> {
    /// The key of the password, if it made the message's integrity.
    fn verify(&self, username: &str, password: &str) -> Option<IntegrityKey> {
        let key = IntegrityKey::long_term_by(self.algorithm, username, self.realm, password);
        self.message.verify(&key).then_some(key)
    }
}

fn static_user(sent: &Sent<'_>, username: &str, proof: &Proof) -> Result<Authenticated, AuthFailure> {
    let is_md5 = sent.algorithm == PasswordAlgorithm::Md5;
    let key = match proof {
        Proof::Password(password) => sent.verify(username, password),
        Proof::Key(key) => Some(key.clone()).filter(|key| is_md5 && sent.message.verify(key)),
    };
    let key = key.ok_or(AuthFailure::WrongPassword)?;
    Ok(Authenticated { key, username: username.into(), user: username.into(), expiry: None })
}

fn by_token(
    third_party: &ThirdParty,
    sent: &Sent<'_>,
    kid: &str,
    token: &[u8],
) -> Result<Authenticated, AuthFailure> {
    let grant = third_party.open(kid, token, sent.now)?;
    let key = grant.keys.into_iter().find(|key| sent.message.verify(key));
    let key = key.ok_or(AuthFailure::WrongPassword)?;
    let expiry = Some(Expiry { at: grant.expires_at, ends_allocation: true });
    Ok(Authenticated { key, username: kid.into(), user: kid.into(), expiry })
}

/// The id in a time-limited user name, see [`super::id`].
#[must_use]
pub fn id_of(username: &str) -> Option<&str> {
    parse_username(username).map(|(_, id)| id)
}

/// User and session in a time-limited user name, see [`super::id`]; the session is empty where there is none.
#[must_use]
pub fn parts_of(username: &str) -> Option<(&str, &str)> {
    id_of(username).map(|id| id.rsplit_once('.').unwrap_or((id, "")))
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
            users: Users::new(REALM, [("static", "pass")]),
            max_ttl: Duration::from_secs(86_400),
            third_party: None,
        }
    }

    fn check(verifier: &Verifier, username: &str, password: &str) -> Result<Authenticated, AuthFailure> {
        check_knowing(verifier, username, password, &mut KnownKeys::default())
    }

    fn check_knowing(
        verifier: &Verifier,
        username: &str,
        password: &str,
        known: &mut KnownKeys,
    ) -> Result<Authenticated, AuthFailure> {
        let mut buffer = [0; 1024];
        let key = IntegrityKey::long_term(username, REALM, password);
        let len = MessageWriter::new(&mut buffer, Class::Request, Method::ALLOCATE, TransactionId([7; 12]))
            .attribute(AttributeType::USERNAME, username.as_bytes())
            .integrity(&key)
            .finish()
            .expect("fits");
        let message = Message::parse(&buffer[..len]).expect("valid");
        let claim = Claim { name: Name::Plain(username), algorithm: PasswordAlgorithm::Md5, token: None };
        verifier.authenticate(&message, &claim, REALM, NOW, known)
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
        assert_eq!((&*who.user, who.expiry.map(|expiry| expiry.at)), ("alice", Some(NOW + 60)));
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
    fn a_known_key_lets_in_who_knows_the_password_and_nobody_else() {
        let (v, mut known) = (verifier(&["s"]), KnownKeys::default());
        let (username, password) = minted("s", 60, "a");
        assert!(known.find(&username, PasswordAlgorithm::Md5).is_none());
        for _ in 0..3 {
            assert!(check_knowing(&v, &username, &password, &mut known).is_ok());
            let wrong = check_knowing(&v, &username, "wrong", &mut known);
            assert_eq!(wrong.err(), Some(AuthFailure::WrongPassword));
        }
        assert!(known.find(&username, PasswordAlgorithm::Md5).is_some());
        // Neither does it outlive its credential, nor does a wrong password leave anything behind.
        let (expired, password) = minted("s", 1, "b");
        let later = Verifier { max_ttl: Duration::ZERO, ..verifier(&["s"]) };
        assert!(check_knowing(&later, &expired, &password, &mut known).is_err());
        assert!(check_knowing(&v, &expired, "wrong", &mut known).is_err());
        assert!(known.find(&expired, PasswordAlgorithm::Md5).is_none());
        assert!(check_knowing(&later, &username, &password, &mut known).is_err(), "known, but not good");
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

    #[test]
    fn a_key_of_coturn_stands_for_the_password_under_its_realm() {
        // turnadmin -k -u ninefingers -r north.gov -p youhavetoberealistic
        let key = 0xbc80_7ee2_9df3_c9ff_a736_523f_b2c4_e8ee_u128.to_be_bytes();
        let users = Users::default().with_keys("north.gov", [("ninefingers", key)]);
        let v = Verifier { users, ..verifier(&[]) };
        let ask = |algorithm, password: &str| {
            let key = IntegrityKey::long_term_by(algorithm, "ninefingers", "north.gov", password);
            let mut buffer = [0; 256];
            let mut writer =
                MessageWriter::new(&mut buffer, Class::Request, Method::ALLOCATE, TransactionId([7; 12]));
            let len = writer.integrity(&key).finish().expect("fits");
            let message = Message::parse(&buffer[..len]).expect("valid");
            let claim = Claim { name: Name::Plain("ninefingers"), algorithm, token: None };
            v.authenticate(&message, &claim, "north.gov", NOW, &mut KnownKeys::default())
                .map(|who| who.user)
                .map_err(Some)
        };
        let (right, wrong) = ("youhavetoberealistic", "youhavetobe");
        assert_eq!(ask(PasswordAlgorithm::Md5, right).as_deref(), Ok("ninefingers"));
        assert_eq!(ask(PasswordAlgorithm::Md5, wrong), Err(Some(AuthFailure::WrongPassword)));
        assert_eq!(ask(PasswordAlgorithm::Sha256, right), Err(Some(AuthFailure::WrongPassword)));
    }
}
