//! The key set of whoever issues tokens, from a URL: read at the start, kept, read again when a token names a key that
//! is not in it, and not more often than that for all the tokens that strangers make up.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::harness::{Home, LOOPBACK, get_with, until};

/// The web server of an issuer.
struct Issuer {
    address: SocketAddr,
    keys: Arc<Mutex<String>>,
    reads: Arc<AtomicUsize>,
}

impl Issuer {
    fn new(keys: &[&Value]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let issuer = Self { address, keys: Arc::default(), reads: Arc::default() };
        issuer.publish(keys);
        let (keys, reads) = (issuer.keys.clone(), issuer.reads.clone());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                reads.fetch_add(1, Ordering::SeqCst);
                let _ = stream.read(&mut [0; 4096]);
                let body = keys.lock().expect("whole").clone();
                let head =
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                let _ = stream.write_all((head + &body).as_bytes());
            }
        });
        issuer
    }

    fn publish(&self, keys: &[&Value]) {
        *self.keys.lock().expect("whole") = json!({ "keys": keys }).to_string();
    }

    fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }
}

/// A signing key, and its public half as the issuer shows it.
fn key(id: &str) -> (EncodingKey, Value) {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    let signer = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).expect("a key");
    let jwk = Jwk::from_encoding_key(&signer, Algorithm::ES256).expect("a public key");
    let mut jwk = serde_json::to_value(jwk).expect("JSON");
    jwk["kid"] = id.into();
    (signer, jwk)
}

fn token(id: &str, signer: &EncodingKey) -> String {
    let header = Header { kid: Some(id.into()), ..Header::new(Algorithm::ES256) };
    encode(&header, &json!({ "sub": "ann", "exp": 4_102_444_800_u64 }), signer).expect("a token")
}

#[test]
fn keys_from_a_url_are_kept_rotate_and_are_not_read_for_every_unknown_key() {
    let ((old, old_jwk), (new, new_jwk)) = (key("old"), key("new"));
    let issuer = Issuer::new(&[&old_jwk]);
    let home = Home::new();
    let rate = LOOPBACK.replace("[http]\n", "[http]\nice_per_minute = 100000\n");
    let url = format!("http://{}/keys.json", issuer.address);
    let process = home.serve(&format!("{rate}[signaling]\naccess = \"token\"\njwks_url = \"{url}\"\n"));
    let server = process.address("http");
    let ask = |token: &str| get_with(server, "/v1/ice", &format!("authorization: Bearer {token}\r\n")).status;
    let start = Instant::now();
    assert_eq!((ask(&token("old", &old)), ask(&token("old", &new))), (200, 401));
    for n in 0..50 {
        assert_eq!(ask(&token(&format!("made-up-{n}"), &new)), 401);
    }
    issuer.publish(&[&new_jwk]);
    until(&200, || ask(&token("new", &new)));
    assert_eq!(ask(&token("old", &old)), 401, "it is in the set no longer");
    let most = 2 + usize::try_from(start.elapsed().as_secs() / 10).expect("a short test");
    assert!((2..=most).contains(&issuer.reads()), "{} reads in {:?}", issuer.reads(), start.elapsed());
}
