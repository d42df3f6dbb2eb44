//! JSON Web Tokens: checking those of clients, minting those of `turnkey token`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use super::jwks::KeySet;
use crate::signal::{Grants, Identity, Rooms};

/// Seconds that the clock of whoever issues tokens may be ahead.
const CLOCKS_APART: u64 = 60;

/// The claims this server reads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The user.
    pub sub: String,
    /// End, Unix seconds.
    pub exp: u64,
    /// The one room this token is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<String>,
    /// The rooms this token is for; `*` for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rooms: Option<Vec<String>>,
    /// The role in them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// What is allowed: `join`, `signal`, `chat`, and `moderate`, which has to be named; the others where the claim
    /// is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grants: Option<Vec<String>>,
    /// Whether several people hold this token, as with an invite link.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
    /// What others call the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Names this token among all; a ticket needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// Whether this is a ticket: it opens one session, once.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub once: bool,
    /// Valid from then on, Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    /// Who has made it. Checked apart, see [`JwtKey::expecting`].
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    /// Whom it is for, likewise.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub aud: Option<String>,
}

/// What checks tokens: a key, and what they have to say. The algorithm belongs to the key, never to the token.
#[derive(Clone)]
pub struct JwtKey {
    key: Key,
    issuer: Option<Box<str>>,
    audience: Option<Box<str>>,
}

#[derive(Clone)]
enum Key {
    One(Box<DecodingKey>, Algorithm),
    /// Those of a set, which may change.
    Set(Arc<KeySet>),
}

impl fmt::Debug for JwtKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            Key::One(_, algorithm) => f.debug_tuple("JwtKey").field(algorithm).finish(),
            Key::Set(set) => set.fmt(f),
        }
    }
}

/// Why a token or a key is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// There is no key to check tokens with.
    NoKey,
    /// The token's time is over.
    Expired,
    /// The token's time has not come.
    Early,
    /// The token is not one of ours: wrong signature, wrong algorithm, or no token at all.
    Invalid,
    /// The token was made by somebody else, or for another server.
    Elsewhere,
    /// The token lacks `sub` or `exp`, or a claim has the wrong type.
    Claims,
    /// The file holds no public key this server can use.
    BadKey,
    /// It is a ticket, and this is not the way in that it opens.
    Ticket,
    /// The token cannot be signed.
    Unsigned,
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoKey => "this server has no key for tokens: set signaling.jwt_secret",
            Self::Expired => "the token has expired, come back with a new one",
            Self::Early => "the token is not valid yet: compare the clocks",
            Self::Invalid => "the token is not valid here: wrong signature or algorithm",
            Self::Elsewhere => "the token has another iss or aud than this server wants",
            Self::Claims => "the token needs sub and exp, and claims of the right type",
            Self::BadKey => "no public key in PEM that is RSA, P-256 or Ed25519",
            Self::Ticket => "a ticket opens one signaling session and nothing else",
            Self::Unsigned => "the token cannot be signed with this key",
        })
    }
}

impl std::error::Error for TokenError {}

impl JwtKey {
    /// A shared secret, HS256.
    #[must_use]
    pub fn hs256(secret: &[u8]) -> Self {
        Self::one(DecodingKey::from_secret(secret), Algorithm::HS256)
    }

    /// The keys of a set.
    #[must_use]
    pub fn set(set: Arc<KeySet>) -> Self {
        Self { key: Key::Set(set), issuer: None, audience: None }
    }

    fn one(key: DecodingKey, algorithm: Algorithm) -> Self {
        Self { key: Key::One(Box::new(key), algorithm), issuer: None, audience: None }
    }

    /// Takes only tokens with this `iss`, and with this `aud` or one of theirs; either where it is not empty.
    #[must_use]
    pub fn expecting(self, issuer: &str, audience: &str) -> Self {
        let some = |text: &str| (!text.is_empty()).then(|| text.into());
        Self { issuer: some(issuer), audience: some(audience), ..self }
    }

    /// The set of its keys, where they are one.
    #[must_use]
    pub fn key_set(&self) -> Option<&Arc<KeySet>> {
        match &self.key {
            Key::One(..) => None,
            Key::Set(set) => Some(set),
        }
    }

    /// Goes on with the key set of `older` if it comes from the same place as its own: where that could not be read
    /// now, it could be earlier.
    pub fn go_on_with(&mut self, older: &Self) {
        if let (Key::Set(new), Key::Set(old)) = (&self.key, &older.key)
            && old.replace_with(new)
        {
            self.key = Key::Set(old.clone());
        }
    }

    /// A public key in PEM: RS256, ES256 or EdDSA, whichever fits the key.
    ///
    /// # Errors
    /// [`TokenError::BadKey`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, TokenError> {
        let rsa = DecodingKey::from_rsa_pem(pem).map(|key| (key, Algorithm::RS256));
        let found = rsa
            .or_else(|_| DecodingKey::from_ec_pem(pem).map(|key| (key, Algorithm::ES256)))
            .or_else(|_| DecodingKey::from_ed_pem(pem).map(|key| (key, Algorithm::EdDSA)));
        let (key, algorithm) = found.map_err(|_| TokenError::BadKey)?;
        Ok(Self::one(key, algorithm))
    }

    /// Checks a token and reads whom it names.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn check(&self, token: &str, now_unix: u64) -> Result<Identity, TokenError> {
        let claims = match &self.key {
            Key::One(key, algorithm) => self.decode(token, key, *algorithm)?,
            Key::Set(set) => self.decode_by_set(token, set)?,
        };
        if claims.exp <= now_unix {
            return Err(TokenError::Expired);
        }
        if claims.nbf.is_some_and(|from| from > now_unix.saturating_add(CLOCKS_APART)) {
            return Err(TokenError::Early);
        }
        claims.into_identity()
    }

    fn decode(&self, token: &str, key: &DecodingKey, algorithm: Algorithm) -> Result<Claims, TokenError> {
        let mut validation = Validation::new(algorithm);
        // Our own clock decides, so that tests and the hub's timers agree with it.
        validation.validate_exp = false;
        validation.validate_aud = self.audience.is_some();
        let mut required = vec!["exp", "sub"];
        if let Some(audience) = &self.audience {
            validation.set_audience(&[audience]);
            required.push("aud");
        }
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        let decoded = jsonwebtoken::decode::<Claims>(token, key, &validation);
        decoded.map(|decoded| decoded.claims).map_err(|error| match error.kind() {
            ErrorKind::InvalidIssuer | ErrorKind::InvalidAudience => TokenError::Elsewhere,
            ErrorKind::MissingRequiredClaim(claim) if matches!(claim.as_str(), "iss" | "aud") => {
                TokenError::Elsewhere
            }
            ErrorKind::Json(_) | ErrorKind::MissingRequiredClaim(_) => TokenError::Claims,
            _ => TokenError::Invalid,
        })
    }

    /// The token says which key of the set it is signed with; the algorithm is still that of the key.
    fn decode_by_set(&self, token: &str, set: &KeySet) -> Result<Claims, TokenError> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Invalid)?;
        let keys = set.find(header.kid.as_deref(), header.alg);
        let mut result = Err(TokenError::Invalid);
        for key in &keys {
            result = self.decode(token, &key.key, key.algorithm);
            if !matches!(result, Err(TokenError::Invalid)) {
                break;
            }
        }
        result
    }
}

impl Claims {
    fn into_identity(self) -> Result<Identity, TokenError> {
        if self.sub.is_empty() || self.sub.len() > 128 {
            return Err(TokenError::Claims);
        }
        let rooms = match (self.room, self.rooms) {
            (None, None) => Rooms::Any,
            (room, rooms) => Rooms::Named(room.into_iter().chain(rooms.unwrap_or_default()).collect()),
        };
        let grants = match &self.grants {
            None => Grants::ALL,
            Some(words) => Grants::from_words(words.iter().map(String::as_str)),
        };
        let ticket = match (self.once, self.jti) {
            (false, _) => None,
            (true, Some(id)) if !id.is_empty() && id.len() <= 128 => Some(id.into()),
            (true, _) => return Err(TokenError::Claims),
        };
        Ok(Identity {
            ticket,
            name: self.name.map(Arc::from),
            role: self.role.map(Arc::from),
            rooms,
            grants,
            expires_at: Some(self.exp),
            is_shared: self.shared,
            ..Identity::member(self.sub)
        })
    }
}

/// Signs a token with a shared secret (HS256), valid for `ttl` from `now_unix`; `claims.exp` is
/// overwritten.
///
/// # Errors
/// [`TokenError::Unsigned`].
pub fn mint(secret: &[u8], mut claims: Claims, now_unix: u64, ttl: Duration) -> Result<String, TokenError> {
    claims.exp = now_unix.saturating_add(ttl.as_secs());
    let key = EncodingKey::from_secret(secret);
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).map_err(|_| TokenError::Unsigned)
}
