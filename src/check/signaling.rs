//! Two clients meet in a room over the native protocol and exchange an offer and an answer.

use std::time::Duration;

use base64::Engine;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::lookup_host;
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderValue, Uri};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::dial::{Dialer, Stream};
use super::report::Problem;
use super::target::Http;

const PROTOCOL: &str = "turnkey.v1";

/// Lets two clients call each other. Returns what was seen.
pub(super) async fn call(http: &Http, token: Option<&str>) -> Result<String, Problem> {
    let room = token.and_then(room_of).unwrap_or_else(|| format!("check-{:08x}", rand_id()));
    let mut caller = Client::connect(http, token).await?;
    let mut callee = Client::connect(http, token).await?;
    let first = caller.join(&room).await?;
    let second = callee.join(&room).await?;
    caller.expect("member-joined", |frame| frame.pointer("/d/member/id") == Some(&second)).await?;
    callee
        .send(json!({"t": "offer", "to": first, "id": "o", "d": {"type": "offer", "sdp": "v=0 check"}}))
        .await?;
    let offer = caller.expect("offer", |frame| frame["from"] == second).await?;
    if offer.pointer("/d/sdp") != Some(&json!("v=0 check")) {
        return Err(Problem::new("the offer arrived changed", "is a proxy rewriting WebSocket messages?"));
    }
    caller
        .send(json!({"t": "answer", "to": second, "id": "a", "d": {"type": "answer", "sdp": "v=0 check"}}))
        .await?;
    callee.expect("answer", |frame| frame["from"] == first).await?;
    for mut client in [caller, callee] {
        // The call is over; how the goodbye goes does not matter.
        let _ = client.send(json!({"t": "bye"})).await;
    }
    Ok(format!("two clients exchanged offer and answer in room {room}"))
}

struct Client {
    socket: WebSocketStream<Box<dyn Stream>>,
    patience: Duration,
}

impl Client {
    async fn connect(http: &Http, token: Option<&str>) -> Result<Self, Problem> {
        let url = format!("{}/v1/ws", http.url.replacen("http", "ws", 1));
        let wrong = || Problem::new(format!("{url} is no WebSocket URL"), "correct --url");
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let host = uri.host().ok_or_else(wrong)?.to_owned();
        let secure = uri.scheme_str() == Some("wss");
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let mut found = lookup_host((host.trim_matches(['[', ']']), port)).await.map_err(|_| wrong())?;
        let address = found.next().ok_or_else(wrong)?;
        let dialer = Dialer { patience: http.patience, insecure: http.insecure };
        let stream: Box<dyn Stream> =
            if secure { dialer.tls(address, &host).await? } else { Box::new(dialer.tcp(address).await?) };
        let mut request = (&uri).into_client_request().map_err(|_| wrong())?;
        request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static(PROTOCOL));
        let deadline = Instant::now() + http.patience;
        let (socket, _) = timeout_at(deadline, client_async(request, stream))
            .await
            .map_err(|_| {
                Problem::new(
                    format!("no answer from {url}"),
                    "is a proxy in the way that knows no WebSockets?",
                )
            })?
            .map_err(|error| refused(&url, &error))?;
        let mut client = Self { socket, patience: http.patience };
        let hello = token.map_or_else(|| json!({}), |token| json!({"token": token}));
        client.send(json!({"t": "hello", "d": hello})).await?;
        client.expect("welcome", |_| true).await?;
        Ok(client)
    }

    async fn join(&mut self, room: &str) -> Result<Value, Problem> {
        self.send(json!({"t": "join", "id": "j", "d": {"room": room, "name": "turnkey check"}})).await?;
        let joined = self.expect("joined", |frame| frame["ref"] == "j").await?;
        Ok(joined.pointer("/d/member").cloned().unwrap_or(Value::Null))
    }

    async fn send(&mut self, frame: Value) -> Result<(), Problem> {
        let sent = self.socket.send(Message::text(frame.to_string())).await;
        sent.map_err(|error| Problem::new(format!("the WebSocket broke: {error}"), "see the server's log"))
    }

    /// Waits for a frame of this kind; others pass by, errors end the wait.
    async fn expect(&mut self, kind: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value, Problem> {
        let deadline = Instant::now() + self.patience;
        loop {
            let message = match timeout_at(deadline, self.socket.next()).await {
                Err(_) => {
                    return Err(Problem::new(format!("no {kind} within the time"), "see the server's log"));
                }
                Ok(None) => return Err(closed(kind, "the server hung up")),
                Ok(Some(Err(error))) => return Err(closed(kind, &error.to_string())),
                Ok(Some(Ok(message))) => message,
            };
            match message {
                Message::Text(text) => {
                    let frame: Value = serde_json::from_str(&text)
                        .map_err(|_| Problem::new("a frame is no JSON", "is this turnkey's HTTP address?"))?;
                    if frame["t"] == kind && wanted(&frame) {
                        return Ok(frame);
                    }
                    if frame["t"] == "error" {
                        return Err(error_frame(kind, &frame));
                    }
                }
                Message::Close(Some(close)) => {
                    return Err(closed(kind, &format!("closed with {} {}", close.code, close.reason)));
                }
                _ => {}
            }
        }
    }
}

fn refused(url: &str, error: &WsError) -> Problem {
    let status = match error {
        WsError::Http(response) => response.status().as_u16(),
        _ => 0,
    };
    let advice = match status {
        401 | 403 => "give --token with a signaling token (`turnkey token`)",
        404 => "is this turnkey's HTTP address?",
        _ => "is a proxy in the way that knows no WebSockets?",
    };
    Problem::new(format!("{url}: {error}"), advice)
}

fn closed(waiting_for: &str, how: &str) -> Problem {
    let advice = if how.contains("4401") || how.contains("4403") {
        "give --token with a signaling token (`turnkey token --user NAME --room ROOM`)"
    } else {
        "see the server's log"
    };
    Problem::new(format!("instead of {waiting_for}: {how}"), advice)
}

fn error_frame(waiting_for: &str, frame: &Value) -> Problem {
    let text = |name: &str| frame["d"][name].as_str().unwrap_or_default().to_owned();
    let advice = match text("code").as_str() {
        "unauthenticated" | "forbidden" => "give --token for a room it may enter (`turnkey token`)",
        "rate_limited" => "too many requests from this address: try again later",
        _ => "see the server's log",
    };
    Problem::new(format!("instead of {waiting_for}: {} {}", text("code"), text("message")), advice)
}

/// The first room a token is for; the server is the one to verify it.
fn room_of(token: &str) -> Option<String> {
    let payload = token.split('.').nth(1)?;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).ok()?;
    let claims: Value = serde_json::from_slice(&bytes).ok()?;
    let room = claims["room"].as_str().or_else(|| claims["rooms"][0].as_str());
    room.filter(|room| *room != "*").map(str::to_owned)
}

/// Enough to keep two checks out of each other's room.
fn rand_id() -> u32 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(claims: &str) -> String {
        let encode = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.x", encode("{}"), encode(claims))
    }

    #[test]
    fn the_room_is_read_from_the_token() {
        assert_eq!(room_of(&token(r#"{"room":"a"}"#)).as_deref(), Some("a"));
        assert_eq!(room_of(&token(r#"{"rooms":["b","c"]}"#)).as_deref(), Some("b"));
        assert_eq!(room_of(&token(r#"{"room":"*"}"#)), None);
        for other in ["", "x", "a.b.c", &token("{}")] {
            assert_eq!(room_of(other), None);
        }
    }
}
