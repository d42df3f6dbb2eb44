//! Which counters there are, what they are called, and what they mean.

use super::page::Page;
use crate::credential::AuthFailure;
use crate::io::{Counters, DtlsCounters, SendFailure};
use crate::offload;
use crate::signal;
use crate::turn::{self, DropReason, METHODS, RESULTS};

/// All counters of a server at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The relay, all workers together.
    pub relay: turn::Stats,
    /// Sockets, all workers together.
    pub io: Counters,
    /// What the kernel relays, where it does.
    pub offload: Option<offload::Counters>,
    /// Connections that were not let in, by reason.
    pub refused: Vec<(&'static str, u64)>,
    /// Each worker's beat.
    pub beats: Vec<u64>,
    /// Signaling.
    pub signal: signal::Stats,
    /// Unix seconds at which the server started.
    pub started_at: u64,
    /// Whether new allocations are refused.
    pub is_draining: bool,
}

/// The Prometheus page.
pub(super) fn render(snapshot: &Snapshot) -> String {
    let mut page = Page::default();
    process(&mut page, snapshot);
    relay(&mut page, &snapshot.relay);
    if let Some(kernel) = &snapshot.offload {
        offloaded(&mut page, &snapshot.relay, kernel);
    }
    sockets(&mut page, &snapshot.io);
    dtls(&mut page, &snapshot.io.dtls);
    entrances(&mut page, &snapshot.refused);
    signaling(&mut page, &snapshot.signal);
    page.finish()
}

fn process(page: &mut Page, snapshot: &Snapshot) {
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    page.family("turnkey_build_info", "The version that runs.", "gauge", [(&version[..], 1)]);
    page.gauge("turnkey_start_time_seconds", "When the server started, Unix seconds.", snapshot.started_at);
    page.gauge("turnkey_draining", "1 while new allocations are refused.", u8::from(snapshot.is_draining));
    let names: Vec<_> = (0..snapshot.beats.len()).map(|worker| worker.to_string()).collect();
    let labels: Vec<_> = names.iter().map(|name| [("worker", name.as_str())]).collect();
    let beats = labels.iter().map(|labels| &labels[..]).zip(&snapshot.beats);
    page.family(
        "turnkey_worker_beats_total",
        "Turns of each worker's loop; at least one a second.",
        "counter",
        beats,
    );
}

fn relay(page: &mut Page, stats: &turn::Stats) {
    page.counter(
        "turnkey_relay_events_dropped_total",
        "Events of allocations that found no room on their way to timelines and books.",
        stats.events_dropped,
    );
    page.gauge("turnkey_allocations", "Live allocations.", stats.allocations);
    page.counter("turnkey_allocations_total", "Allocations granted.", stats.allocations_total);
    let (to_peer, to_client) = ([("direction", "to_peer")], [("direction", "to_client")]);
    page.family(
        "turnkey_relayed_packets_total",
        "Packets relayed.",
        "counter",
        [(&to_peer[..], stats.to_peer_packets), (&to_client[..], stats.to_client_packets)],
    );
    page.family(
        "turnkey_relayed_bytes_total",
        "Payload bytes relayed.",
        "counter",
        [(&to_peer[..], stats.to_peer_bytes), (&to_client[..], stats.to_client_bytes)],
    );
    let reasons = DropReason::ALL.map(|reason| [("reason", reason.as_str())]);
    let drops = reasons.iter().map(|labels| &labels[..]).zip(stats.drops);
    page.family(
        "turnkey_dropped_packets_total",
        "Packets dropped by the relay, by reason.",
        "counter",
        drops,
    );
    let steps = AuthFailure::STEPS.map(|step| [("step", step)]);
    let failures = steps.iter().map(|labels| &labels[..]).zip(stats.auth_failures);
    page.family(
        "turnkey_auth_failures_total",
        "Requests that proved no credential, by the step that failed.",
        "counter",
        failures,
    );
    let labels = METHODS.map(|method| RESULTS.map(|result| [("method", method), ("result", result)]));
    let requests =
        labels.iter().flatten().map(|labels| &labels[..]).zip(stats.requests.into_iter().flatten());
    page.family(
        "turnkey_requests_total",
        "STUN and TURN requests by method and result.",
        "counter",
        requests,
    );
}

fn offloaded(page: &mut Page, stats: &turn::Stats, kernel: &offload::Counters) {
    page.gauge("turnkey_offload_flows", "Channels that the kernel relays.", stats.offload_flows);
    let ways = ["to_peer", "to_client", "local"].map(|way| [("direction", way)]);
    let counts = [kernel.to_peer, kernel.to_client, kernel.local];
    page.family(
        "turnkey_offload_packets_total",
        "Packets relayed in the kernel; they are among turnkey_relayed_packets_total within a second.",
        "counter",
        ways.iter().map(|labels| &labels[..]).zip(counts),
    );
    let reasons = offload::PASSED.map(|reason| [("reason", reason)]);
    page.family(
        "turnkey_offload_passed_total",
        "Packets that passed the offload program and went on to the sockets, by reason.",
        "counter",
        reasons.iter().map(|labels| &labels[..]).zip(kernel.passed),
    );
    let failed = [("no_slot", stats.offload_full), ("refused", kernel.not_installed)];
    let labels = failed.map(|(reason, _)| [("reason", reason)]);
    page.family(
        "turnkey_offload_failed_inserts_total",
        "How often the kernel's tables did not take a flow, which is then relayed the usual way; each refresh tries again.",
        "counter",
        labels.iter().map(|labels| &labels[..]).zip(failed.map(|(_, count)| count)),
    );
    page.counter(
        "turnkey_offload_failed_packets_total",
        "Packets the kernel could not resize.",
        kernel.failed,
    );
}

fn dtls(page: &mut Page, dtls: &DtlsCounters) {
    page.gauge("turnkey_dtls_sessions", "Live DTLS sessions, handshakes included.", dtls.sessions);
    page.gauge("turnkey_dtls_half_open", "DTLS handshakes that go on.", dtls.half_open);
    let counters = [
        (
            "turnkey_dtls_verifications_total",
            "DTLS hellos that were asked for their cookie.",
            dtls.verifications,
        ),
        ("turnkey_dtls_handshakes_total", "DTLS handshakes completed.", dtls.handshakes),
        ("turnkey_dtls_failures_total", "DTLS handshakes that failed or took too long.", dtls.failures),
        ("turnkey_dtls_refused_total", "DTLS handshakes refused at a bound.", dtls.refused),
        ("turnkey_dtls_idle_total", "DTLS sessions closed because they never allocated.", dtls.idle),
        (
            "turnkey_dtls_drops_total",
            "Datagrams of nobody's DTLS session, hellos above the rate, messages too long for a record.",
            dtls.drops,
        ),
    ];
    for (name, help, value) in counters {
        page.counter(name, help, value);
    }
}

fn sockets(page: &mut Page, io: &Counters) {
    let failures = SendFailure::ALL.map(|failure| [("reason", failure.as_str())]);
    let failures = failures.iter().map(|labels| &labels[..]).zip(io.send_failures);
    page.family(
        "turnkey_send_errors_total",
        "Datagrams that could not be sent, by reason.",
        "counter",
        failures,
    );
    let counters = [
        ("turnkey_received_datagrams_total", "Datagrams read.", io.recv_packets),
        ("turnkey_receive_calls_total", "System calls that read datagrams.", io.recv_calls),
        ("turnkey_sent_datagrams_total", "Datagrams sent.", io.send_packets),
        ("turnkey_send_calls_total", "System calls that sent datagrams.", io.send_calls),
        (
            "turnkey_coalesced_datagrams_total",
            "Datagrams sent as part of a run (UDP_SEGMENT).",
            io.send_coalesced,
        ),
        ("turnkey_receive_errors_total", "Errors while reading; all survived.", io.recv_errors),
        ("turnkey_receive_overflows_total", "Datagrams lost to a full receive buffer.", io.recv_overflows),
        ("turnkey_io_fallbacks_total", "Times the kernel refused a fast path.", io.fallbacks),
        ("turnkey_connections_total", "TCP clients taken over by workers.", io.streams_opened),
        (
            "turnkey_connections_moved_total",
            "TCP clients handed on to the worker of their allocation.",
            io.streams_moved,
        ),
        (
            "turnkey_allocations_moved_total",
            "Allocations handed on to the worker their client has come to.",
            io.allocations_moved,
        ),
        (
            "turnkey_connections_garbage_total",
            "TCP clients closed for bytes that are no TURN message.",
            io.streams_garbage,
        ),
        (
            "turnkey_connections_idle_total",
            "TCP clients closed because they never allocated.",
            io.streams_idle,
        ),
        (
            "turnkey_connections_stuck_total",
            "TCP clients closed because they did not read.",
            io.streams_stuck,
        ),
        (
            "turnkey_connection_drops_total",
            "Relayed packets dropped at a full TCP write queue.",
            io.stream_drops,
        ),
        (
            "turnkey_handed_on_total",
            "Packets given to the worker that has their allocation: between two clients, and with a shared port.",
            io.handed_on,
        ),
        ("turnkey_ring_drops_total", "Packets for another worker that it was too busy for.", io.ring_drops),
    ];
    for (name, help, value) in counters {
        page.counter(name, help, value);
    }
}

fn entrances(page: &mut Page, refused: &[(&'static str, u64)]) {
    let labels: Vec<_> = refused.iter().map(|(reason, _)| [("reason", *reason)]).collect();
    let refused = labels.iter().map(|labels| &labels[..]).zip(refused.iter().map(|(_, count)| count));
    page.family(
        "turnkey_connections_not_let_in_total",
        "Connections closed before their first request, by reason.",
        "counter",
        refused,
    );
}

fn signaling(page: &mut Page, stats: &signal::Stats) {
    let gauges = [
        ("turnkey_signal_sockets", "Open signaling sockets.", stats.sockets),
        ("turnkey_sessions", "Signaling sessions, those that may resume included.", stats.sessions),
        ("turnkey_rooms", "Rooms with a connected member.", stats.rooms),
        ("turnkey_members", "Connected members of rooms.", stats.members),
        ("turnkey_calls", "Calls between users that are not over.", stats.calls),
    ];
    for (name, help, value) in gauges {
        page.gauge(name, help, value);
    }
    let counters = [
        ("turnkey_signal_connects_total", "Signaling sockets accepted.", stats.connects),
        ("turnkey_signal_refused_total", "Signaling sockets refused.", stats.refused),
        ("turnkey_signal_frames_received_total", "Frames received.", stats.frames_in),
        ("turnkey_signal_frames_sent_total", "Frames sent.", stats.frames_out),
        ("turnkey_signal_errors_total", "Frames refused with an error.", stats.errors),
        ("turnkey_signal_rate_limited_total", "Frames dropped by the rate limit.", stats.rate_limited),
        ("turnkey_signal_struck_out_total", "Sockets closed for bad frames or floods.", stats.struck_out),
        ("turnkey_signal_overflows_total", "Frames dropped because a bound was reached.", stats.overflowed),
        ("turnkey_signal_missed_total", "Messages that raw clients without a socket missed.", stats.missed),
        ("turnkey_signal_dead_sockets_total", "Sockets that stopped answering.", stats.dead_sockets),
        ("turnkey_signal_resumed_total", "Sessions that came back on another socket.", stats.resumed),
        ("turnkey_signal_resume_failed_total", "Sessions that could not come back.", stats.resume_failed),
        ("turnkey_signal_duplicates_total", "Frames acknowledged again.", stats.duplicates),
        ("turnkey_mail_held_total", "Offers that waited for somebody.", stats.mail_held),
        ("turnkey_mail_delivered_total", "Waiting offers that somebody came for.", stats.mail_delivered),
        ("turnkey_mail_expired_total", "Waiting offers nobody came for.", stats.mail_expired),
        ("turnkey_calls_total", "Calls that were made.", stats.calls_made),
        ("turnkey_credentials_total", "TURN credentials handed out.", stats.credentials),
    ];
    for (name, help, value) in counters {
        page.counter(name, help, value);
    }
}
