//! One OS thread a core: one turn::Server, its sockets, one loop.
