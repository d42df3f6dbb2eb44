//! Relay credentials end with what they were made for: the allocation too, and nothing is forwarded any more.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Client, Home, LOOPBACK, Process, credentials, eventually, get, metric, until};
use crate::store::{Socket, post, token};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn serve(home: &Home) -> Process {
    home.serve(&format!(
        "{LOOPBACK}[peers]\nallow = [\"127.0.0.1/32\"]\n[signaling]\naccess = \"token\"\njwt_secret = \"{SECRET}\"\n"
    ))
}

/// A relay that forwards what its peer sends.
pub(crate) struct Relayed {
    client: Client,
    pub(crate) peer: UdpSocket,
    address: SocketAddr,
    name: String,
    password: String,
}

impl Relayed {
    pub(crate) fn new(server: SocketAddr, servers: &Value) -> Self {
        let (name, password) = credentials(servers);
        let mut client = Client::new(server);
        let address = client.allocate(&name, &password).expect("allocated");
        let address = SocketAddr::from(([127, 0, 0, 1], address.port()));
        let peer = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        client.permit(peer.local_addr().expect("an address"), &name, &password).expect("permitted");
        let relayed = Self { client, peer, address, name, password };
        eventually(|| relayed.forwards(), |does| *does);
        relayed
    }

    pub(crate) fn forwards(&self) -> bool {
        // A closed port may be told of with the next call.
        let _ = self.peer.send_to(b"media", self.address);
        self.client.receives(Duration::from_millis(100))
    }

    /// The credential opens nothing again, the port closes and nothing comes through.
    pub(crate) fn ends(mut self, server: SocketAddr) {
        until(&Err(401), || self.client.refresh(600, &self.name, &self.password));
        eventually(|| self.forwards(), |does| !does);
        assert_eq!(Client::new(server).allocate(&self.name, &self.password), Err(401));
    }
}

#[test]
fn s4_25_who_leaves_or_whose_call_ends_loses_the_relay_at_once() {
    let home = Home::new();
    let process = serve(&home);
    let (http, relay, admin) = (process.address("http"), process.address("udp"), process.address("admin"));
    let (mut ann, welcome) = Socket::native(http, &json!({ "token": token(SECRET, "ann") }));
    ann.join("r");
    let (mut bob, of_bob) = Socket::native(http, &json!({ "token": token(SECRET, "bob") }));
    bob.join("r");
    let of_bob = Relayed::new(relay, &of_bob["ice_servers"]);
    let of_ann = Relayed::new(relay, &welcome["ice_servers"]);
    ann.send(json!({ "t": "leave", "id": "l" }).to_string());
    let fresh = ann.frame("ice");
    of_ann.ends(relay);
    // Others go on.
    eventually(|| of_bob.forwards(), |does| *does);
    let again = Relayed::new(relay, &fresh["d"]["ice_servers"]);
    ann.send(json!({ "t": "bye" }).to_string());
    again.ends(relay);

    let caller = token(SECRET, "ann");
    let call = post(http, "/calls/initiate", &caller, &json!({ "callee_id": "bob" }).to_string());
    let in_call = Relayed::new(relay, &call["ice_servers"]);
    post(http, &format!("/calls/end/{}", call["call_id"].as_str().expect("an id")), &caller, "");
    in_call.ends(relay);
    // The credentials of another session.
    eventually(|| of_bob.forwards(), |does| *does);
    until(&1.0, || metric(&get(admin, "/metrics").body, "turnkey_allocations"));
}
