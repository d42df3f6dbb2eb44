-- Timelines are looked up by the room they are of; a call's room has its id.
CREATE INDEX timelines_by_room ON timelines (node, room_id, began_at);
