//! HTTP and WebSocket: the routes, and the sockets of the signaling hub.
