//! Keys whose value is a table with fields of its own: `relay.redirect` and `credentials.third_party`.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use toml::{Table, Value};

use super::source::Error;
use super::values::Check;
use super::{Redirect, ThirdParty};
use crate::credential::TokenKey;

impl Check<'_> {
    /// `relay.redirect = { to = "ADDRESS:PORT", domain = "NAME" }`
    pub(super) fn redirect(&self, table: &Table) -> Result<Option<Redirect>, Error> {
        let key = "relay.redirect";
        self.fields(key, table, &["to", "domain"])?;
        if table.is_empty() {
            return Ok(None);
        }
        let to = self.text(key, table, "to")?;
        let to = to.split(',').map(|address| self.socket_address(&format!("{key}.to"), address.trim()));
        let to = to.collect::<Result<Vec<SocketAddr>, _>>()?;
        let of_family = |is_v4: bool| to.iter().filter(|address| address.is_ipv4() == is_v4).count();
        if of_family(true) > 1 || of_family(false) > 1 {
            return self
                .fail(&format!("{key}.to"), "takes one address a family, one of IPv4 and one of IPv6");
        }
        let domain = self.text(key, table, "domain")?;
        // RFC 8489 §14.16
        if domain.len() > 255 {
            return self.fail(&format!("{key}.domain"), "must have at most 255 characters");
        }
        Ok(Some(Redirect { to, domain }))
    }

    /// `[credentials.third_party]` with `server = "NAME"` and `keys = { KID = "BASE64" }`
    pub(super) fn third_party(&self, table: &Table) -> Result<Option<ThirdParty>, Error> {
        let key = "credentials.third_party";
        self.fields(key, table, &["server", "keys"])?;
        if table.is_empty() {
            return Ok(None);
        }
        let server = self.text(key, table, "server")?;
        if server.is_empty() || server.len() > 255 {
            let problem =
                "must be the name of 1 to 255 characters under which the authorisation server knows this one";
            return self.fail(&format!("{key}.server"), problem);
        }
        let keys = match table.get("keys") {
            Some(Value::Table(keys)) if !keys.is_empty() => keys,
            _ => {
                return self
                    .fail(&format!("{key}.keys"), "expected a table, { kid = \"base64 of the key\" }");
            }
        };
        let keys = keys.iter().map(|(kid, value)| Ok((kid.clone(), self.token_key(kid, value)?)));
        Ok(Some(ThirdParty { server, keys: keys.collect::<Result<BTreeMap<_, _>, _>>()? }))
    }

    fn token_key(&self, kid: &str, value: &Value) -> Result<Vec<u8>, Error> {
        let key = format!("credentials.third_party.keys.{kid}");
        if kid.is_empty() || kid.len() > 508 {
            return self.fail(&key, "a kid has 1 to 508 bytes: clients send it as USERNAME");
        }
        let bytes = value.as_str().and_then(|text| STANDARD.decode(text).ok());
        match bytes.map(|bytes| TokenKey::new(&bytes).map(|_| bytes)) {
            Some(Ok(bytes)) => Ok(bytes),
            Some(Err(error)) => self.fail(&key, error.to_string()),
            None => self.fail(&key, "must be base64; make a key with: openssl rand -base64 32"),
        }
    }

    fn fields(&self, key: &str, table: &Table, known: &[&str]) -> Result<(), Error> {
        match table.keys().find(|field| !known.contains(&field.as_str())) {
            Some(field) => self
                .fail(&format!("{key}.{field}"), format!("unknown field, expected {}", known.join(" or "))),
            None => Ok(()),
        }
    }

    /// A field with text; empty where it is absent.
    fn text(&self, key: &str, table: &Table, field: &str) -> Result<String, Error> {
        match table.get(field) {
            None => Ok(String::new()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(_) => self.fail(&format!("{key}.{field}"), "expected a string"),
        }
    }
}
