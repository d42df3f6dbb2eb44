//! A real server on a port of its own, and clients for it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Message, http};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use turnkey::credential::Secrets;
use turnkey::http::token::{Claims, JwtKey, mint};
use turnkey::http::{Access, App, Outside, Settings, router};

pub(crate) const SECRET: &[u8] = b"a secret of at least thirty-two bytes";

/// Far longer than anything here takes; only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Server {
    pub(crate) app: Arc<App>,
    pub(crate) address: SocketAddr,
}

/// Open to this machine, as without a configuration.
pub(crate) fn open() -> Settings {
    let urls = [
        "stun:127.0.0.1:3478",
        "turn:127.0.0.1:3478?transport=udp",
        "turn:127.0.0.1:3478?transport=tcp",
        "turns:127.0.0.1:5349?transport=tcp",
        "turns:127.0.0.1:5349?transport=udp",
    ];
    Settings {
        ice_urls: urls.map(str::to_owned).to_vec(),
        secrets: Secrets::new(["relay secret"]),
        ..Settings::default()
    }
}

/// With a key for tokens, as on a public address.
pub(crate) fn guarded() -> Settings {
    Settings {
        access: Access::Token,
        jwt: Some(JwtKey::hs256(SECRET)),
        api_keys: vec!["api-key".into()],
        ..open()
    }
}

pub(crate) fn unix() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs()
}

pub(crate) fn jwt(user: &str, room: Option<&str>) -> String {
    let claims = Claims { sub: user.into(), room: room.map(Into::into), ..Claims::default() };
    mint(SECRET, claims, unix(), Duration::from_secs(600)).expect("token")
}

impl Server {
    pub(crate) async fn start(settings: Settings) -> Self {
        Self::start_on("127.0.0.1:0", settings).await
    }

    pub(crate) async fn start_on(address: &str, settings: Settings) -> Self {
        Self::serve(address, App::new(settings, [3; 32])).await
    }

    /// With a journal, or a relay.
    pub(crate) async fn with(settings: Settings, outside: Outside) -> Self {
        Self::serve("127.0.0.1:0", App::with(settings, [3; 32], outside)).await
    }

    async fn serve(address: &str, app: Arc<App>) -> Self {
        let listener = TcpListener::bind(address).await.expect("port");
        let address = listener.local_addr().expect("address");
        let service = router(app.clone()).into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async move { axum::serve(listener, service).await });
        Self { app, address }
    }

    /// A socket with these request headers.
    pub(crate) async fn ws_with(&self, path: &str, headers: &[(&str, &str)]) -> Client {
        let url = format!("ws://{}{path}", self.address);
        let mut request = url.into_client_request().expect("request");
        for (name, value) in headers {
            let name: http::HeaderName = name.parse().expect("name");
            request.headers_mut().insert(name, value.parse().expect("value"));
        }
        let (stream, response) =
            timeout(PATIENCE, connect_async(request)).await.expect("no hang").expect("upgrade");
        Client { stream, response }
    }

    pub(crate) async fn ws(&self, path: &str) -> Client {
        self.ws_with(path, &[]).await
    }

    /// A native session; returns its welcome.
    pub(crate) async fn native(&self, path: &str, hello: &str) -> (Client, Value) {
        let mut client = self.ws_with(path, &[("sec-websocket-protocol", "turnkey.v1")]).await;
        client.send(hello).await;
        let welcome = client.next().await;
        assert_eq!(welcome["t"], "welcome", "{welcome}");
        (client, welcome["d"].clone())
    }

    pub(crate) async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.request("GET", path, headers).await
    }

    /// One HTTP request, over a connection of its own. `Host` can be overridden.
    pub(crate) async fn request(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.request_with(method, path, headers, "").await
    }

    /// A request with a body.
    pub(crate) async fn request_with(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut text = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
        if !headers.iter().any(|(name, _)| *name == "host") {
            text += &format!("host: {}\r\n", self.address);
        }
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        let mut stream = TcpStream::connect(self.address).await.expect("connect");
        if !body.is_empty() {
            text += &format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
        }
        stream.write_all(format!("{text}\r\n{body}").as_bytes()).await.expect("write");
        let mut bytes = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("no hang").expect("read");
        Answer::parse(&String::from_utf8(bytes).expect("text"))
    }
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").expect("head");
        let mut lines = head.lines();
        let status = lines.next().and_then(|l| l.split(' ').nth(1)).and_then(|s| s.parse().ok());
        let headers = lines.filter_map(|l| l.split_once(": ")).map(|(n, v)| (n.to_lowercase(), v.to_owned()));
        Self { status: status.expect("status"), headers: headers.collect(), body: body.to_owned() }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.body))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

pub(crate) struct Client {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    pub(crate) response: http::Response<Option<Vec<u8>>>,
}

impl Client {
    pub(crate) async fn send(&mut self, text: &str) {
        self.stream.send(Message::text(text)).await.expect("send");
    }

    pub(crate) async fn send_binary(&mut self, bytes: Vec<u8>) {
        self.stream.send(Message::binary(bytes)).await.expect("send");
    }

    pub(crate) async fn send_pong(&mut self, payload: Vec<u8>) {
        self.stream.send(Message::Pong(payload.into())).await.expect("send");
    }

    /// Sends without caring whether the server still listens.
    pub(crate) async fn try_send(&mut self, text: &str) -> bool {
        self.stream.send(Message::text(text)).await.is_ok()
    }

    /// The next text frame as it came.
    pub(crate) async fn text(&mut self) -> String {
        loop {
            match timeout(PATIENCE, self.stream.next()).await.expect("no hang") {
                Some(Ok(Message::Text(text))) => return text.to_string(),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => panic!("no text frame: {other:?}"),
            }
        }
    }

    pub(crate) async fn next(&mut self) -> Value {
        serde_json::from_str(&self.text().await).expect("json")
    }

    /// The next frame of this kind, past others.
    pub(crate) async fn until(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.next().await;
            if frame["t"] == kind || frame["type"] == kind {
                return frame;
            }
        }
    }

    pub(crate) async fn join(&mut self, room: &str) -> Value {
        self.send(&format!(r#"{{"t":"join","id":"j","d":{{"room":"{room}"}}}}"#)).await;
        self.until("joined").await["d"].clone()
    }

    /// Reads to the end; the close code and reason, and the text frames before it.
    pub(crate) async fn end(&mut self) -> (Option<u16>, String, Vec<String>) {
        let mut texts = Vec::new();
        let mut closed = (None, String::new());
        loop {
            match timeout(PATIENCE, self.stream.next()).await.expect("no hang") {
                Some(Ok(Message::Text(text))) => texts.push(text.to_string()),
                Some(Ok(Message::Close(Some(frame)))) => {
                    closed = (Some(frame.code.into()), frame.reason.to_string());
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return (closed.0, closed.1, texts),
            }
        }
    }

    pub(crate) async fn close_code(&mut self) -> Option<u16> {
        self.end().await.0
    }
}
