//! Signaling tokens this program signs itself: `turnkey token` and the invite link of `--public`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

/// What a signaling token says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Token {
    /// Whom it is for (claim `sub`).
    pub user: String,
    /// The room it opens.
    pub room: String,
    /// The role in it.
    pub role: Option<String>,
    /// The name others see.
    pub name: Option<String>,
    /// How long it is valid.
    pub ttl: Duration,
}

impl Token {
    /// The JWT, signed with HS256 from now on.
    ///
    /// # Errors
    /// The key cannot sign.
    pub fn sign(&self, key: &[u8]) -> Result<String, jsonwebtoken::errors::Error> {
        let now = unix_now();
        let expires_at = now.saturating_add(self.ttl.as_secs());
        let mut claims = json!({ "sub": self.user, "room": self.room, "iat": now, "exp": expires_at });
        for (claim, value) in [("role", &self.role), ("name", &self.name)] {
            if let Some(value) = value {
                claims[claim] = Value::from(value.as_str());
            }
        }
        jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(key))
    }
}

/// Seconds since 1970.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
