//! The cluster a host belongs to, as its cluster file system (pmxcfs) lists it.
//!
//! [`remote`] alone reaches other nodes. [`jobs`] reads the backup jobs, which all nodes share.

pub mod jobs;
pub mod remote;

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::de::Error as _;
use serde::{Deserialize, Serialize};

use super::members::{Member, MemberList};
use super::root::{Root, RootError, read_bounded};

/// The member list, written by pmxcfs from what corosync tells it (`cfs_create_memberlist_msg`).
pub const MEMBERS: &str = "etc/pve/.members";

/// The largest list that is read. Corosync's limit is far below 1000 nodes of 100 bytes each.
const MAX_MEMBERS: u64 = 1 << 20;

/// The nodes of a cluster, or the one node of a host that is in none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    /// The cluster's name; `None` outside a cluster.
    pub cluster: Option<String>,
    /// Whether this node's part of the cluster has the majority. Without it, `/etc/pve` is read-only, and the others
    /// may only look offline from here.
    pub quorate: bool,
    /// This node first, then the others by name.
    pub nodes: Vec<Node>,
}

/// A member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// Whether it is the node that we run on.
    pub own: bool,
    /// Whether the cluster sees it.
    pub online: bool,
    /// Its address in the cluster; `None` where the cluster does not know it yet.
    pub ip: Option<IpAddr>,
}

/// The name of a node: letters, digits and inner hyphens only, so it is safe as an argument, in paths and on terminals.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct NodeName(String);

/// The member list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// There is no list.
    #[error(
        "{}: not there, so the cluster's members are unknown; is this a Proxmox VE host, and does its cluster file \
         system run (systemctl status pve-cluster)?", path.display()
    )]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// It cannot be read.
    #[error("{}: {cause}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// It is not what pmxcfs writes.
    #[error("{}: not the member list that pmxcfs writes: {cause}", path.display())]
    Garbled {
        /// The file.
        path: PathBuf,
        /// Where and why.
        cause: serde_json::Error,
    },
    /// Its path cannot be followed.
    #[error(transparent)]
    Root(#[from] RootError),
}

impl Members {
    /// Reads the list of the host below `root`.
    ///
    /// # Errors
    /// [`ClusterError`]; to be in no cluster is none.
    pub fn read(root: &Root) -> Result<Self, ClusterError> {
        let path = root.resolve(MEMBERS)?;
        let bytes = match read_bounded(&path, MAX_MEMBERS) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ClusterError::Missing { path });
            }
            Err(cause) => return Err(ClusterError::Io { path, cause }),
        };
        Self::parse(&bytes).map_err(|cause| ClusterError::Garbled { path, cause })
    }

    fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        let MemberList { nodename, cluster, mut nodelist } = MemberList::parse(json)?;
        let nodename = nodename.ok_or_else(|| serde_json::Error::missing_field("nodename"))?;
        let checked = |name: String| NodeName::try_from(name).map_err(serde_json::Error::custom);
        let address =
            |ip: Option<String>| ip.map(|ip| ip.parse().map_err(serde_json::Error::custom)).transpose();
        let ip = address(nodelist.remove(&nodename).and_then(|node| node.ip))?;
        let own = Node { name: checked(nodename)?, own: true, online: true, ip };
        let mut nodes = vec![own];
        for (name, Member { online, ip }) in nodelist {
            let online = online.ok_or_else(|| serde_json::Error::missing_field("online"))? != 0;
            nodes.push(Node { name: checked(name)?, own: false, online, ip: address(ip)? });
        }
        Ok(Self {
            quorate: cluster.as_ref().is_none_or(|cluster| cluster.quorate != 0),
            cluster: cluster.map(|cluster| cluster.name),
            nodes,
        })
    }
}

impl NodeName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for NodeName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

/// The error for a text that is no name of a node.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no name of a node")]
pub struct NodeNameError(String);

impl TryFrom<String> for NodeName {
    type Error = NodeNameError;

    /// As Proxmox' format `pve-node`, and no longer than a host name may be.
    fn try_from(name: String) -> Result<Self, NodeNameError> {
        let sound = (1..=63).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !name.starts_with('-')
            && !name.ends_with('-');
        if sound { Ok(Self(name)) } else { Err(NodeNameError(name)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In pmxcfs' own layout.
    const THREE: &str = r#"{
"nodename": "pve2",
"version": 7,
"cluster": { "name": "lab", "version": 3, "nodes": 3, "quorate": 1 },
"nodelist": {
  "pve3": { "id": 3, "online": 0},
  "pve1": { "id": 1, "online": 1, "ip": "fd00::11"},
  "pve2": { "id": 2, "online": 1, "ip": "10.0.0.12"}
  }
}
"#;

    #[test]
    fn the_own_node_comes_first() {
        let members = Members::parse(THREE.as_bytes()).unwrap();
        assert_eq!((members.cluster.as_deref(), members.quorate), (Some("lab"), true));
        let told: Vec<_> = members
            .nodes
            .iter()
            .map(|node| (node.name.as_str(), node.own, node.online, node.ip.map(|ip| ip.to_string())))
            .collect();
        assert_eq!(
            told,
            [
                ("pve2", true, true, Some("10.0.0.12".to_owned())),
                ("pve1", false, true, Some("fd00::11".to_owned())),
                ("pve3", false, false, None),
            ]
        );
    }

    #[test]
    fn a_host_in_no_cluster_is_one_node() {
        let members = Members::parse(b"{\n\"nodename\": \"pve\",\n\"version\": 0\n}\n").unwrap();
        assert_eq!((members.nodes.len(), members.cluster, members.quorate), (1, None, true));
    }

    #[test]
    fn what_could_be_more_than_a_name_or_address_is_refused() {
        for name in ["", "-oProxyCommand=x", "a b", "a;b", "a'b", "a\"b", "a/..", "ä", "a-", &"a".repeat(64)]
        {
            assert!(NodeName::try_from(name.to_owned()).is_err(), "{name}");
            let list = serde_json::json!({"nodename": "pve1", "nodelist": {name: {"online": 1}}});
            assert!(Members::parse(list.to_string().as_bytes()).is_err(), "{name}");
        }
        for ip in ["10.0.0.1 -oProxyCommand=x", "host", ""] {
            let list = serde_json::json!({"nodename": "pve1", "nodelist": {"pve2": {"online": 1, "ip": ip}}});
            assert!(Members::parse(list.to_string().as_bytes()).is_err(), "{ip}");
        }
    }

    #[test]
    fn no_list_and_no_json_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        assert!(matches!(Members::read(&root), Err(ClusterError::Missing { .. })));
        fs_err::create_dir_all(dir.path().join("etc/pve")).unwrap();
        for text in ["", "{}", "{\"nodename\": \"pve1\"", "[]"] {
            fs_err::write(dir.path().join(MEMBERS), text).unwrap();
            assert!(matches!(Members::read(&root), Err(ClusterError::Garbled { .. })), "{text}");
        }
    }
}
