//! The books: calls, sessions with their attendees and metrics, timelines, and what was relayed for whom. Each record can be
//! written again and changes nothing then.

use std::collections::BTreeMap;

use super::group::ROWS;
use super::{Marks, Statement, number, plain, statement};
use crate::signal::{Call, Record, TimelineView, Usage};

/// Rows of each kind that are forgotten in one transaction: few, as writing waits for it.
pub(super) const AT_ONCE: i64 = 25;

/// How rows of one kind that are over are found, and what goes with each.
pub(super) struct Forgotten {
    pub(super) find: &'static str,
    pub(super) delete: &'static [&'static str],
}

pub(super) const FORGOTTEN: &[Forgotten] = &[
    Forgotten {
        find: "SELECT call_id FROM calls WHERE node = $1 AND ended_at < $2 LIMIT $3",
        delete: &["DELETE FROM calls WHERE call_id = $1"],
    },
    Forgotten {
        find: "SELECT session_id FROM sessions WHERE node = $1 AND ended_at < $2 LIMIT $3",
        delete: &[
            "DELETE FROM metrics WHERE session_id = $1",
            "DELETE FROM attendees WHERE session_id = $1",
            "DELETE FROM sessions WHERE session_id = $1",
        ],
    },
    Forgotten {
        find: "SELECT usage_id FROM turn_usage WHERE node = $1 AND ended_at < $2 LIMIT $3",
        delete: &["DELETE FROM turn_usage WHERE usage_id = $1"],
    },
    Forgotten {
        find: "SELECT timeline_id FROM timelines WHERE node = $1 AND ended_at < $2 LIMIT $3",
        delete: &["DELETE FROM timelines WHERE timeline_id = $1"],
    },
];

/// Records of one group, those of usage together.
pub(super) fn statements(node: &str, marks: Marks, records: &[Record]) -> Vec<Statement> {
    let mut statements = Vec::with_capacity(records.len());
    // Of each allocation what was said last: one statement must not write a row twice.
    let mut usages = BTreeMap::new();
    for record in records {
        match record {
            Record::Call(call) => statements.push(put_call(node, call)),
            Record::Usage(usage) => drop(usages.insert(&usage.usage, &**usage)),
            Record::Timeline { name, view } => statements.push(put_timeline(node, name, view)),
            Record::Began { session, room, at } => {
                let sql = "INSERT INTO sessions (session_id, node, room_id, started_at) VALUES ($1, $2, $3, $4) \
                           ON CONFLICT (session_id) DO NOTHING";
                let query = sqlx::query(sql).bind(plain(session)).bind(node.to_owned());
                statements.push(query.bind(plain(room)).bind(number(*at)));
            }
            Record::Ended { session, at } => statements.extend(ended(session, *at)),
            Record::Joined { session, attendee, user, role, peer, at } => {
                let sql = "INSERT INTO attendees (attendee_id, session_id, user_id, role, peer_id, joined_at) \
                           VALUES ($1, $2, $3, $4, $5, $6) \
                           ON CONFLICT (attendee_id) DO UPDATE SET left_at = NULL, reason = NULL, duration_minutes = NULL";
                let query = sqlx::query(sql).bind(plain(attendee)).bind(plain(session)).bind(plain(user));
                statements.push(query.bind(role.as_deref().map(plain)).bind(plain(peer)).bind(number(*at)));
            }
            Record::Left { attendee, reason, at } => {
                let sql = "UPDATE attendees SET left_at = $2, reason = $3, \
                           duration_minutes = ($2 - joined_at) / 60.0 WHERE attendee_id = $1 AND left_at IS NULL";
                statements.push(sqlx::query(sql).bind(plain(attendee)).bind(number(*at)).bind(*reason));
            }
        }
    }
    let usages: Vec<_> = usages.into_values().collect();
    statements.extend(usages.chunks(ROWS).map(|rows| put_usages(node, marks, rows)));
    statements
}

/// Closes the session with everybody in it, and draws up its metrics.
fn ended(session: &str, at: u64) -> Vec<Statement> {
    let attendees = "UPDATE attendees SET left_at = $2, reason = 'lost', \
                     duration_minutes = ($2 - joined_at) / 60.0 WHERE session_id = $1 AND left_at IS NULL";
    let end = "UPDATE sessions SET ended_at = $2, session_duration_minutes = ($2 - started_at) / 60.0 \
               WHERE session_id = $1 AND ended_at IS NULL";
    let metrics = "INSERT INTO metrics (session_id, session_duration_minutes, attendees, attendee_minutes) \
                   SELECT s.session_id, s.session_duration_minutes, COUNT(DISTINCT a.user_id), \
                   COALESCE(SUM(a.duration_minutes), 0) FROM sessions s \
                   LEFT JOIN attendees a ON a.session_id = s.session_id \
                   WHERE s.session_id = $1 AND s.ended_at IS NOT NULL \
                   GROUP BY s.session_id, s.session_duration_minutes ON CONFLICT (session_id) DO NOTHING";
    vec![
        sqlx::query(attendees).bind(plain(session)).bind(number(at)),
        sqlx::query(end).bind(plain(session)).bind(number(at)),
        sqlx::query(metrics).bind(plain(session)),
    ]
}

fn put_call(node: &str, call: &Call) -> Statement {
    let sql = "INSERT INTO calls (call_id, node, caller_id, callee_id, status, created_at, accepted_at, ended_at, \
               duration_seconds, connection_state) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
               ON CONFLICT (call_id) DO UPDATE SET status = excluded.status, accepted_at = excluded.accepted_at, \
               ended_at = excluded.ended_at, duration_seconds = excluded.duration_seconds, \
               connection_state = excluded.connection_state";
    let lasted = call.ended_at.zip(call.accepted_at).map(|(end, start)| number(end.saturating_sub(start)));
    sqlx::query(sql)
        .bind(plain(&call.id))
        .bind(node.to_owned())
        .bind(plain(&call.caller))
        .bind(plain(&call.callee))
        .bind(call.status.as_str())
        .bind(number(call.created_at))
        .bind(call.accepted_at.map(number))
        .bind(call.ended_at.map(number))
        .bind(lasted)
        .bind(plain(&call.connection_state))
}

/// Of an allocation that stands, what it has carried so far; the last of it stays where the server is killed.
fn put_usages(node: &str, marks: Marks, rows: &[&Usage]) -> Statement {
    let sql = format!(
        "INSERT INTO turn_usage (node, usage_id, user_id, scope, transport, started_at, ended_at, duration_seconds, \
         packets_to_peer, bytes_to_peer, packets_to_client, bytes_to_client) VALUES {} \
         ON CONFLICT (usage_id) DO UPDATE SET \
         ended_at = excluded.ended_at, duration_seconds = excluded.duration_seconds, \
         packets_to_peer = excluded.packets_to_peer, bytes_to_peer = excluded.bytes_to_peer, \
         packets_to_client = excluded.packets_to_client, bytes_to_client = excluded.bytes_to_client",
        vec!["(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"; rows.len()].join(", ")
    );
    rows.iter().fold(statement(marks.set(sql)), |query, usage| {
        query
            .bind(node.to_owned())
            .bind(plain(&usage.usage))
            .bind(plain(&usage.user))
            .bind(plain(&usage.scope))
            .bind(usage.transport.as_str())
            .bind(number(usage.ended_at.saturating_sub(usage.lasted.as_secs())))
            .bind(number(usage.ended_at))
            .bind(usage.lasted.as_secs_f64())
            .bind(number(usage.to_peer.0))
            .bind(number(usage.to_peer.1))
            .bind(number(usage.to_client.0))
            .bind(number(usage.to_client.1))
    })
}

fn put_timeline(node: &str, name: &str, view: &TimelineView) -> Statement {
    let sql = "INSERT INTO timelines (timeline_id, node, room_id, began_at, ended_at, cause, sentence, timeline) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (timeline_id) DO UPDATE SET \
               ended_at = excluded.ended_at, cause = excluded.cause, sentence = excluded.sentence, \
               timeline = excluded.timeline";
    sqlx::query(sql)
        .bind(plain(name))
        .bind(node.to_owned())
        .bind(plain(&view.call_id))
        .bind(number(view.began_at))
        .bind(view.ended_at.map(number))
        .bind(view.verdict.cause.as_str())
        .bind(plain(&view.verdict.sentence))
        .bind(view.to_json())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::RelayTransport;

    fn usage(name: u64, bytes: u64) -> Record {
        Record::Usage(Box::new(Usage {
            usage: format!("{name:016x}").into(),
            user: "ann".into(),
            scope: "".into(),
            transport: RelayTransport::Udp,
            is_over: false,
            ended_at: 9,
            lasted: std::time::Duration::from_secs(5),
            to_peer: (1, bytes),
            to_client: (0, 0),
        }))
    }

    #[test]
    fn what_many_allocations_have_carried_takes_few_statements() {
        let records: Vec<_> = (0..120).map(|name| usage(name, 7)).collect();
        assert_eq!(statements("n", Marks::Question, &records).len(), 3, "fifty rows each");
        let again: Vec<_> = (0..120).map(|bytes| usage(1, bytes)).collect();
        assert_eq!(statements("n", Marks::Question, &again).len(), 1);
    }
}
