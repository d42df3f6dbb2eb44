-- What was relayed on each allocation that has ended, for whom. `scope` is the signaling session or the call its
-- credentials were made for, empty where they were for neither.
CREATE TABLE turn_usage (
    usage_id          TEXT   NOT NULL PRIMARY KEY,
    node              TEXT   NOT NULL,
    user_id           TEXT   NOT NULL,
    scope             TEXT   NOT NULL,
    transport         TEXT   NOT NULL,
    started_at        BIGINT NOT NULL,
    ended_at          BIGINT NOT NULL,
    duration_seconds  DOUBLE PRECISION NOT NULL,
    packets_to_peer   BIGINT NOT NULL,
    bytes_to_peer     BIGINT NOT NULL,
    packets_to_client BIGINT NOT NULL,
    bytes_to_client   BIGINT NOT NULL
);
CREATE INDEX turn_usage_by_user ON turn_usage (user_id, ended_at);

-- What happened in calls and rooms that are over, and why. `timeline_id` is a call's id, or the session_id of a room.
CREATE TABLE timelines (
    timeline_id TEXT   NOT NULL PRIMARY KEY,
    node        TEXT   NOT NULL,
    room_id     TEXT   NOT NULL,
    began_at    BIGINT NOT NULL,
    ended_at    BIGINT,
    cause       TEXT   NOT NULL,
    sentence    TEXT   NOT NULL,
    timeline    TEXT   NOT NULL
);
CREATE INDEX timelines_by_cause ON timelines (cause, ended_at);
