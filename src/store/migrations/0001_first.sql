-- SQLite and PostgreSQL alike. Times are Unix seconds.

-- What a node is restored from after a restart.
CREATE TABLE journal (
    node   TEXT   NOT NULL,
    kind   TEXT   NOT NULL,
    owner  TEXT   NOT NULL,
    number BIGINT NOT NULL,
    value  TEXT   NOT NULL,
    PRIMARY KEY (node, kind, owner, number)
);

-- Calls between two users.
CREATE TABLE calls (
    call_id          TEXT   NOT NULL PRIMARY KEY,
    node             TEXT   NOT NULL,
    caller_id        TEXT   NOT NULL,
    callee_id        TEXT   NOT NULL,
    status           TEXT   NOT NULL,
    created_at       BIGINT NOT NULL,
    accepted_at      BIGINT,
    ended_at         BIGINT,
    duration_seconds BIGINT,
    connection_state TEXT   NOT NULL
);

-- One row each time a room is in use, from the first one's coming to the last one's leaving.
CREATE TABLE sessions (
    session_id               TEXT   NOT NULL PRIMARY KEY,
    node                     TEXT   NOT NULL,
    room_id                  TEXT   NOT NULL,
    started_at               BIGINT NOT NULL,
    ended_at                 BIGINT,
    session_duration_minutes DOUBLE PRECISION
);
CREATE INDEX sessions_by_room ON sessions (room_id, started_at);

-- Who was there.
CREATE TABLE attendees (
    attendee_id      TEXT   NOT NULL PRIMARY KEY,
    session_id       TEXT   NOT NULL,
    user_id          TEXT   NOT NULL,
    role             TEXT,
    peer_id          TEXT   NOT NULL,
    joined_at        BIGINT NOT NULL,
    left_at          BIGINT,
    reason           TEXT,
    duration_minutes DOUBLE PRECISION
);
CREATE INDEX attendees_by_session ON attendees (session_id);
CREATE INDEX attendees_by_user ON attendees (user_id, joined_at);

-- Figures of a session that is over.
CREATE TABLE metrics (
    session_id               TEXT   NOT NULL PRIMARY KEY,
    session_duration_minutes DOUBLE PRECISION NOT NULL,
    attendees                BIGINT NOT NULL,
    attendee_minutes         DOUBLE PRECISION NOT NULL
);
