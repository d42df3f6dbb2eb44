//! The library inside another program.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use tokio::net::TcpListener;
use turnkey::{Config, Server};

use crate::harness::{Client, eventually, get};

/// Another program may get the port for a moment.
#[track_caller]
fn is_free(port: SocketAddr) {
    eventually(|| UdpSocket::bind(port), Result::is_ok).expect("free");
}

#[tokio::test(flavor = "multi_thread")]
async fn example_serves_relay_and_router_in_one_application() {
    let (turnkey, router) = crate::embed::start().await.expect("started");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let http = listener.local_addr().expect("an address");
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let application = tokio::spawn(async move { axum::serve(listener, service).await });
    let udp = turnkey.addresses().udp[0];
    assert!(turnkey.addresses().http.is_empty() && turnkey.addresses().admin.is_none());
    tokio::task::spawn_blocking(move || {
        let ice: serde_json::Value = serde_json::from_str(&get(http, "/v1/ice").body).expect("JSON");
        assert!(ice["iceServers"].to_string().contains(&format!("turn:{udp}?transport=udp")), "{ice}");
        let own: serde_json::Value = serde_json::from_str(&get(http, "/hello").body).expect("JSON");
        let text = |key: &str| own[key].as_str().expect("a string").to_owned();
        let mut client = Client::new(udp);
        assert!(client.binding().ip().is_loopback());
        client.allocate(&text("username"), &text("credential")).expect("allocated");
    })
    .await
    .expect("answered");
    application.abort();
    turnkey.stop().await;
    is_free(udp);
}

#[tokio::test(flavor = "multi_thread")]
async fn drain_refuses_and_returns_when_all_have_gone() {
    let config = "[relay]\nlisten = [\"udp://127.0.0.1:0\"]\n[http]\nlisten = []\n[admin]\nlisten = \"\"\n\
                  [store]\nurl = \"none\"\n[credentials]\nsecrets = [\"0123456789abcdef\"]\n";
    let turnkey = Server::start(Config::from_toml(config).expect("valid")).await.expect("started");
    let udp = turnkey.addresses().udp[0];
    let credential = turnkey.mint("alice", Duration::from_secs(60)).expect("minted");
    turnkey.drain();
    turnkey.drained().await;
    let allocate = move || {
        let mut client = Client::new(udp);
        eventually(
            || client.allocate(&credential.username, &credential.password).map(drop),
            |result| *result == Err(508) || *result == Err(486),
        )
    };
    assert!(tokio::task::spawn_blocking(allocate).await.expect("answered").is_err());
    turnkey.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_in_one_program() {
    let config = "[relay]\nlisten = [\"udp://127.0.0.1:0\"]\nworkers = 1\n[http]\nlisten = []\n[admin]\nlisten = \"\"\n\
                  [store]\nurl = \"none\"\n[credentials]\nsecrets = [\"0123456789abcdef\"]\n";
    let start = || async { Server::start(Config::from_toml(config).expect("valid")).await.expect("started") };
    let (one, two) = (start().await, start().await);
    let addresses = [one.addresses().udp[0], two.addresses().udp[0]];
    assert_ne!(addresses[0], addresses[1]);
    one.stop().await;
    let answer = tokio::task::spawn_blocking(move || Client::new(addresses[1]).binding());
    assert!(answer.await.expect("answered").ip().is_loopback());
    // Dropped, not stopped: its port is free all the same.
    drop(two);
    is_free(addresses[1]);
}
