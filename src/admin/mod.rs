//! The admin listener: liveness, readiness, metrics.
