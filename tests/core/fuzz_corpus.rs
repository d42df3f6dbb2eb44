//! The committed corpus of every fuzz target, replayed without the fuzzer.

use std::path::Path;

use turnkey::fuzzing;

fn replay(target: &str, body: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let inputs: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(inputs.len() >= 5, "{} holds {} inputs", folder.display(), inputs.len());
    inputs.iter().for_each(|input| body(&std::fs::read(input).unwrap()));
}

#[test]
fn stun_message() {
    replay("stun_message", fuzzing::stun_message);
}

#[test]
fn channel_data() {
    replay("channel_data", fuzzing::channel_data);
}

#[test]
fn proxy_header() {
    replay("proxy_header", fuzzing::proxy_header);
}

#[test]
fn stranger() {
    replay("stranger", fuzzing::stranger);
}

#[test]
fn authenticated() {
    replay("authenticated", fuzzing::authenticated);
}

#[test]
fn access_token() {
    replay("access_token", fuzzing::access_token);
}

#[test]
fn signaling() {
    replay("signaling", fuzzing::signaling);
}

#[test]
fn dtls_hello() {
    replay("dtls_hello", fuzzing::dtls_hello);
}
