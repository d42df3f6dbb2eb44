//! An axum application with a relay and signaling inside it.
//!
//!     cargo run --example embed
//!
//! One process and one HTTP port: turnkey's router is merged into the application's own, and the relay runs on
//! threads beside it.

use std::error::Error;
use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use axum::routing::get;
use axum::{Json, Router};
use tokio::net::TcpListener;
use turnkey::{Config, Handle, Server};

/// The relay's part of the application's configuration.
const CONFIG: &str = r#"
[relay]
listen = ["udp://127.0.0.1:0", "tcp://127.0.0.1:0"]
[http]
listen = []     # the application serves turnkey's router itself
[store]
url = "none"   # calls are forgotten with the process; without this line they are kept in the state directory
[admin]
listen = ""
"#;

/// The relay and the application around it; `/hello` is the application's own.
pub(crate) async fn start() -> Result<(Handle, Router), Box<dyn Error>> {
    let turnkey = Server::start(Config::from_toml(CONFIG)?).await?;
    // What a back end does for a user it knows: credentials without an HTTP request.
    let credential = turnkey.mint("alice", Duration::from_secs(600))?;
    let urls = turnkey.ice_urls();
    let ice_server = serde_json::json!({
        "urls": urls, "username": credential.username, "credential": credential.password,
    });
    let hello = get(move || async { Json(ice_server) });
    let router = Router::new().route("/hello", hello).merge(turnkey.router());
    Ok((turnkey, router))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (turnkey, router) = start().await?;
    let listener = TcpListener::bind("127.0.0.1:8080").await?;
    writeln!(std::io::stdout(), "http://{} and {:?}", listener.local_addr()?, turnkey.ice_urls())?;
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service)
        .with_graceful_shutdown(async {
            // Without a signal handler there is nothing better to wait for.
            let _ = tokio::signal::ctrl_c().await;
        })
        .await?;
    turnkey.stop().await;
    Ok(())
}
