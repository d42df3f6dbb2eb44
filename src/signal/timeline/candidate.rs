//! What a candidate line says about how its sender can be reached: its type and its protocol. The address is read
//! over and never kept.

use std::sync::LazyLock;

use memchr::memchr2;
use memchr::memmem::Finder;
use serde::{Deserialize, Serialize};

/// Where a candidate comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CandidateKind {
    /// An address of the host itself.
    Host,
    /// What a STUN server saw.
    Srflx,
    /// What the other side saw.
    Prflx,
    /// An address of a relay.
    Relay,
}

/// How packets leave for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// As datagrams.
    Udp,
    /// Over a connection (RFC 6544).
    Tcp,
}

/// What is kept of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Where it comes from.
    pub kind: CandidateKind,
    /// How packets leave.
    pub protocol: Protocol,
}

impl Candidate {
    /// Each there can be, with its name in counts.
    pub const ALL: [(Self, &str); 8] = [
        (Self { kind: CandidateKind::Host, protocol: Protocol::Udp }, "host/udp"),
        (Self { kind: CandidateKind::Srflx, protocol: Protocol::Udp }, "srflx/udp"),
        (Self { kind: CandidateKind::Prflx, protocol: Protocol::Udp }, "prflx/udp"),
        (Self { kind: CandidateKind::Relay, protocol: Protocol::Udp }, "relay/udp"),
        (Self { kind: CandidateKind::Host, protocol: Protocol::Tcp }, "host/tcp"),
        (Self { kind: CandidateKind::Srflx, protocol: Protocol::Tcp }, "srflx/tcp"),
        (Self { kind: CandidateKind::Prflx, protocol: Protocol::Tcp }, "prflx/tcp"),
        (Self { kind: CandidateKind::Relay, protocol: Protocol::Tcp }, "relay/tcp"),
    ];

    /// Its place in [`Self::ALL`].
    pub(crate) fn index(self) -> usize {
        self.kind as usize + 4 * self.protocol as usize
    }
}

/// The candidates in a payload: that of a candidate message, or a description that has them in it. What cannot be
/// read is passed over.
pub(crate) fn candidates(payload: &str) -> impl Iterator<Item = Candidate> + '_ {
    static BEGIN: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new("candidate:"));
    BEGIN.find_iter(payload.as_bytes()).filter_map(|at| {
        let rest = &payload[at + BEGIN.needle().len()..];
        // The end of the text, or of a line in it.
        let end = memchr2(b'"', b'\\', rest.as_bytes()).unwrap_or(rest.len());
        parse(&rest[..end])
    })
}

/// `foundation component transport priority address port typ type …` (RFC 8839).
fn parse(line: &str) -> Option<Candidate> {
    let mut words = line.split_ascii_whitespace();
    let protocol = match words.nth(2)? {
        word if word.eq_ignore_ascii_case("udp") => Protocol::Udp,
        word if word.eq_ignore_ascii_case("tcp") => Protocol::Tcp,
        _ => return None,
    };
    let kind = match words.skip_while(|word| *word != "typ").nth(1)? {
        "host" => CandidateKind::Host,
        "srflx" => CandidateKind::Srflx,
        "prflx" => CandidateKind::Prflx,
        "relay" => CandidateKind::Relay,
        _ => return None,
    };
    Some(Candidate { kind, protocol })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(payload: &str) -> Vec<&'static str> {
        candidates(payload).map(|one| Candidate::ALL[one.index()].1).collect()
    }

    #[test]
    fn candidates_are_read_wherever_they_stand() {
        let line =
            "candidate:842163049 1 udp 1677729535 203.0.113.9 46154 typ srflx raddr 10.0.0.1 rport 46154";
        assert_eq!(names(&format!(r#"{{"candidate":"{line}","sdpMid":"0"}}"#)), ["srflx/udp"]);
        assert_eq!(
            names(r#"{"candidate":"candidate:1 1 TCP 1 x.local 9 typ host tcptype active"}"#),
            ["host/tcp"]
        );
        let sdp = r#"{"type":"offer","sdp":"v=0\r\na=candidate:1 1 UDP 9 2001:db8::1 5 typ host\r\na=candidate:2 1 udp 8 192.0.2.1 6 typ relay\r\na=end-of-candidates\r\n"}"#;
        assert_eq!(names(sdp), ["host/udp", "relay/udp"]);
    }

    #[test]
    fn what_is_no_candidate_is_passed_over() {
        for payload in [
            "null",
            r#"{"candidate":""}"#,
            r#"{"candidate":"candidate:"}"#,
            r#"{"candidate":"candidate:1 1 udp 1 a 1 typ"}"#,
            r#"{"candidate":"candidate:1 1 udp 1 a 1 typ unheard"}"#,
            r#"{"candidate":"candidate:1 1 sctp 1 a 1 typ host"}"#,
            r#"{"candidate":"candidate:1 1 udp"}","x":"typ host"#,
        ] {
            assert_eq!(names(payload), [""; 0], "{payload}");
        }
    }

    #[test]
    fn each_candidate_stands_at_its_index() {
        for (index, (candidate, _)) in Candidate::ALL.iter().enumerate() {
            assert_eq!(candidate.index(), index);
        }
    }
}
