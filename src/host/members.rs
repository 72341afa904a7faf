//! `/etc/pve/.members`, the list of a cluster's nodes that pmxcfs makes up from what corosync tells it
//! (`cfs_create_memberlist_msg`).

use std::collections::BTreeMap;

use serde::Deserialize;

/// The list's name in the cluster file system. It is there exactly where that is mounted.
pub(super) const NAME: &str = ".members";

/// The list as pmxcfs writes it. Callers check that the fields they need are there, and that names are names.
#[derive(Debug, Default, Deserialize)]
pub(super) struct MemberList {
    /// The name of this node.
    pub nodename: Option<String>,
    /// The cluster; `None` outside one.
    pub cluster: Option<Cluster>,
    /// The nodes by their names; none outside a cluster, and not all of them until corosync runs.
    #[serde(default)]
    pub nodelist: BTreeMap<String, Member>,
}

/// What the list says of the cluster.
#[derive(Debug, Deserialize)]
pub(super) struct Cluster {
    /// Its name.
    pub name: String,
    /// Whether this node's part of it has the majority: not 0.
    pub quorate: u8,
}

/// What the list says of a node.
#[derive(Debug, Deserialize)]
pub(super) struct Member {
    /// Whether the cluster sees it: not 0.
    pub online: Option<u8>,
    /// Its address in the cluster, as text; `None` where the cluster does not know it yet.
    pub ip: Option<String>,
}

impl MemberList {
    /// Reads the list.
    ///
    /// # Errors
    /// Where it is no JSON of that form.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }
}
