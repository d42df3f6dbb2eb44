//! Between a core's rows and the kernel that relays by them: what the core says is installed and removed, what
//! the kernel has relayed is counted by the core.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use super::run::Worker;
use crate::io::Datagrams;
use crate::offload::Offload;
use crate::turn::{FlowId, OffloadRow, Usage};

/// The loop turns at least this often, so that the kernel goes on: it stops after a second without a beat.
const BEAT: Duration = Duration::from_millis(250);

/// Flows whose counters are read in one turn, at a microsecond each.
const SWEEP: usize = 64;

/// How soon the next ones are read.
const SOON: Duration = Duration::from_millis(1);

/// The flows of one worker that the kernel relays.
pub(super) struct Mirrored {
    kernel: Arc<Offload>,
    /// What each has carried so far, by slot.
    flows: BTreeMap<u32, (FlowId, Usage)>,
    /// The slot whose counters were read last, while a sweep goes on.
    sweep: Option<Bound<u32>>,
}

impl Mirrored {
    pub(super) fn new(kernel: Arc<Offload>) -> Self {
        Self { kernel, flows: BTreeMap::new(), sweep: None }
    }

    /// How long the loop may rest.
    pub(super) fn patience(&self) -> Duration {
        if self.sweep.is_some() { SOON } else { BEAT }
    }

    /// A row that the kernel has no room for is counted there, and its packets come here.
    fn install(&mut self, row: &OffloadRow) {
        if self.kernel.install(row).is_ok() {
            self.flows.entry(row.flow.slot).or_insert((row.flow, Usage::default()));
        }
    }

    /// What a flow has carried that is not counted yet.
    fn remove(&mut self, flow: FlowId) -> Usage {
        match self.flows.remove(&flow.slot) {
            Some((_, counted)) => self.kernel.remove(flow).since(counted),
            None => Usage::default(),
        }
    }

    /// What some of the flows have carried since they were looked at last.
    fn look(&mut self, mut count: impl FnMut(FlowId, Usage)) {
        let Some(from) = self.sweep else { return };
        self.sweep = None;
        for (index, (slot, (flow, counted))) in self.flows.range_mut((from, Bound::Unbounded)).enumerate() {
            if index == SWEEP {
                break;
            }
            let usage = self.kernel.usage(*flow);
            count(*flow, usage.since(*counted));
            *counted = usage;
            self.sweep = Some(Bound::Excluded(*slot));
        }
    }
}

impl<D: Datagrams> Worker<D> {
    pub(super) fn install(&mut self, row: &OffloadRow) {
        if let Some(mirrored) = &mut self.mirrored {
            mirrored.install(row);
        }
    }

    pub(super) fn uninstall(&mut self, flow: FlowId) {
        if let Some(mirrored) = &mut self.mirrored {
            let usage = mirrored.remove(flow);
            self.core.count_offloaded(self.now, flow, usage);
        }
    }

    /// Tells the kernel that this process lives, and counts on.
    pub(super) fn attend_offload(&mut self) {
        if let Some(mirrored) = &mut self.mirrored {
            mirrored.kernel.beat();
            mirrored.look(|flow, usage| self.core.count_offloaded(self.now, flow, usage));
        }
    }

    /// Begins to count all flows.
    pub(super) fn count_flows(&mut self) {
        if let Some(mirrored) = &mut self.mirrored
            && mirrored.sweep.is_none()
        {
            mirrored.sweep = Some(Bound::Unbounded);
        }
    }

    /// The kernel relays none of this worker's flows any more.
    pub(super) fn uninstall_all(&mut self) {
        let of = |mirrored: &Mirrored| mirrored.flows.values().map(|(flow, _)| *flow).collect();
        let flows: Vec<_> = self.mirrored.as_ref().map(of).unwrap_or_default();
        flows.into_iter().for_each(|flow| self.uninstall(flow));
    }
}
