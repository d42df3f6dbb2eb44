//! Every bound of the hub.
