//! Systems without BPF: an offload that cannot be started.

use std::convert::Infallible;
use std::time::Instant;

use super::Mode;
use super::error::{InstallError, OffloadError};
use super::outcome::Counters;
use crate::turn::{FlowId, OffloadRow, SharedWords, Usage};

/// Cannot be made on this system.
pub struct Offload(Infallible);

impl Offload {
    /// Says that this needs Linux.
    ///
    /// # Errors
    /// Always.
    pub fn start(_: Mode, _: &[String], _: Instant, _: u32) -> Result<(Self, String), OffloadError> {
        Err(OffloadError::System)
    }

    /// Where times of rows count from.
    pub fn origin(&self) -> Instant {
        match self.0 {}
    }

    /// How many rows there may be.
    pub fn capacity(&self) -> u32 {
        match self.0 {}
    }

    /// The words of the meters.
    pub fn meters(&self) -> SharedWords {
        match self.0 {}
    }

    /// Sets the limits.
    pub fn set_rates(&self, _: [u64; 3]) {
        match self.0 {}
    }

    /// Says that user space is alive.
    pub fn beat(&self) {
        match self.0 {}
    }

    /// Installs a row.
    ///
    /// # Errors
    /// None.
    pub fn install(&self, _: &OffloadRow) -> Result<(), InstallError> {
        match self.0 {}
    }

    /// Ends a row.
    pub fn remove(&self, _: FlowId) -> Usage {
        match self.0 {}
    }

    /// What a row has carried.
    pub fn usage(&self, _: FlowId) -> Usage {
        match self.0 {}
    }

    /// What became of all packets.
    pub fn counters(&self) -> Counters {
        match self.0 {}
    }
}
