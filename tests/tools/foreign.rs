//! The client of the `turn` crate: allocates, relays both ways, refreshes.

use std::sync::Arc;
use std::time::Duration;

use rtc_turn::client::{Client, ClientConfig};
use tokio::net::UdpSocket;
use tokio::time::{sleep, timeout};
use webrtc_util::Conn;

use crate::rig::{OPEN, Server};

const PATIENCE: Duration = Duration::from_secs(20);

async fn client(server: &Server) -> Client {
    let address = server.udp().to_string();
    let config = ClientConfig {
        stun_serv_addr: address.clone(),
        turn_serv_addr: address,
        username: "u".into(),
        password: "p".into(),
        realm: String::new(),
        software: String::new(),
        rto_in_ms: 0,
        conn: Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("a free port")),
        vnet: None,
    };
    let client = Client::new(config).await.expect("a client");
    client.listen().await.expect("listening");
    client
}

/// Waits until the server has counted something.
async fn wait_for(server: &Server, metric: &str, at_least: u64) {
    let reached = async {
        while server.metric(metric) < at_least {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("{metric} stays below {at_least}"));
}

#[tokio::test]
async fn it_allocates_relays_both_ways_and_goes() {
    let server = Server::start(OPEN);
    let client = client(&server).await;
    let relay = client.allocate().await.expect("allocated");
    let relayed = relay.local_addr().expect("an address");
    let peer = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
    let peer_address = peer.local_addr().expect("bound");
    let mut buffer = [0; 1500];
    // The first packets are Send indications, later ones ChannelData.
    for n in 0..20u32 {
        let text = format!("packet {n}");
        relay.send_to(text.as_bytes(), peer_address).await.expect("sent");
        let (len, from) =
            timeout(PATIENCE, peer.recv_from(&mut buffer)).await.expect("in time").expect("received");
        assert_eq!((&buffer[..len], from), (text.as_bytes(), relayed));
        peer.send_to(&buffer[..len], from).await.expect("sent back");
        let (len, from) =
            timeout(PATIENCE, relay.recv_from(&mut buffer)).await.expect("in time").expect("received");
        assert_eq!((&buffer[..len], from), (text.as_bytes(), peer_address));
        wait_for(&server, "turnkey_requests_total{method=\"channel_bind\",result=\"ok\"}", u64::from(n > 0))
            .await;
    }
    assert_eq!(server.metric("turnkey_allocations "), 1);
    relay.close().await.expect("closed");
    wait_for(&server, "turnkey_requests_total{method=\"refresh\",result=\"ok\"}", 1).await;
    assert_eq!(server.metric("turnkey_allocations "), 0);
}

#[tokio::test]
async fn it_refreshes_allocation_and_permissions() {
    let server = Server::start(OPEN);
    let client = client(&server).await;
    let relay = client.allocate().await.expect("allocated");
    let peer = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
    relay.send_to(b"x", peer.local_addr().expect("bound")).await.expect("sent");
    // Its timers run on tokio's clock: half of the ten minutes pass at once for the client.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(301)).await;
    tokio::time::resume();
    wait_for(&server, "turnkey_requests_total{method=\"refresh\",result=\"ok\"}", 1).await;
    wait_for(&server, "turnkey_requests_total{method=\"create_permission\",result=\"ok\"}", 2).await;
    assert_eq!(server.metric("turnkey_allocations "), 1);
    relay.close().await.expect("closed");
}
