//! Map from slots to nodes. In: a slot. Out: the nodes that hold it. It asks no node.

use std::sync::Arc;
use std::time::Instant;

use super::node::Node;

/// Map from slots to nodes.
pub(super) struct SlotMap {
    pub(super) made: Instant,
    pub(super) clustered: bool,
    /// Copies of a group of slots, the master first.
    pub(super) groups: Vec<Vec<Arc<Node>>>,
    /// Group of each slot; out of range where no node holds the slot.
    pub(super) group_of: Vec<u16>,
    pub(super) degraded: bool,
    pub(super) copies_seen: usize,
}

impl SlotMap {
    /// Returns the nodes that hold a slot, the master first; empty if there is none.
    pub(super) fn copies(&self, slot: u16) -> &[Arc<Node>] {
        let group = self.group_of.get(usize::from(slot));
        group.and_then(|group| self.groups.get(usize::from(*group))).map_or(&[], |nodes| nodes)
    }
}
