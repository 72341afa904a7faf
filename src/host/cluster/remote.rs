//! Runs our program on the nodes of the cluster: on this node as a process, on the others through root's SSH, with the same
//! options as Proxmox' own tools (`PVE::SSHInfo`).

use std::time::Duration;

use super::Node;
use crate::host::{Program, ProgramError, Root};
use crate::text::harmless;

/// Our program, in the PATH of a node.
const PROGRAM: &str = "pve-diff-backup";

/// SSH's own exit code for all that is not the remote command's.
const SSH_FAILED: i32 = 255;

/// A shell's exit code where there is no such program.
const NO_SUCH_PROGRAM: i32 = 127;

/// What a program is run for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// It only looks. It is given up after a minute, and ends with us.
    Look,
    /// It changes the node. It gets a quarter of an hour, and a Ctrl-C that is meant for us does not end it.
    Change,
}

/// What a node answered.
#[derive(Debug)]
pub struct Answer {
    /// The exit code of our program there.
    pub code: i32,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

/// A node did not run our program to its end.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The cluster does not see the node.
    #[error("offline")]
    Offline,
    /// SSH could not connect.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// The key is not the one known for the node.
    #[error(
        "its host key is not the one that the cluster knows; if it was installed anew, run `pvecm updatecerts` there \
         (ssh: {0})"
    )]
    HostKey(String),
    /// SSH would have asked for a password.
    #[error("root may not log in without a password; `pvecm updatecerts` there sets that up (ssh: {0})")]
    Denied(String),
    /// Our program is not there.
    #[error("pve-diff-backup is not installed there")]
    NotInstalled,
    /// It did not answer in time. What it does there may go on.
    #[error("did not answer within {} s", .0.as_secs())]
    Slow(Duration),
    /// The connection broke, or the program was killed. What it does there may go on.
    #[error("broke off: {0}")]
    BrokeOff(String),
    /// The program that connects cannot be run here.
    #[error("{0}")]
    Start(ProgramError),
}

/// Runs `pve-diff-backup ARGUMENTS` on `node` of the cluster of the host below `root`.
///
/// The arguments are joined by blanks and read by a shell over there: plain words only.
///
/// # Errors
/// [`RemoteError`] where there is no exit code of ours.
pub fn run(root: &Root, node: &Node, arguments: &[&str], purpose: Purpose) -> Result<Answer, RemoteError> {
    if !node.online {
        return Err(RemoteError::Offline);
    }
    let (program, words) = match node.own {
        // Also where an upgrade has replaced the file.
        true => ("/proc/self/exe", arguments.iter().map(ToString::to_string).collect()),
        false => ("ssh", ssh(root, node, arguments)),
    };
    let program = Program::new(program, words).limit(purpose.limit());
    let program = match purpose {
        Purpose::Look => program,
        Purpose::Change => program.in_own_group(),
    };
    let ran = program.run().map_err(|error| match error {
        ProgramError::Slow { limit, .. } => RemoteError::Slow(limit),
        error @ ProgramError::Start { .. } => RemoteError::Start(error),
    })?;
    let (code, out, err) = (ran.status.code(), ran.out(), ran.err());
    match code {
        None => Err(RemoteError::BrokeOff(last_line(&err))),
        Some(SSH_FAILED) if !node.own => Err(why(&err, &out)),
        Some(NO_SUCH_PROGRAM) => Err(RemoteError::NotInstalled),
        Some(code) => Ok(Answer { code, out, err }),
    }
}

impl RemoteError {
    /// Whether what our program was doing there may go on.
    pub fn may_go_on(&self) -> bool {
        matches!(self, Self::Slow(_) | Self::BrokeOff(_))
    }
}

impl Purpose {
    /// How long to wait for the end.
    fn limit(self) -> Duration {
        Duration::from_secs(match self {
            Self::Look => 60,
            Self::Change => 15 * 60,
        })
    }
}

/// The arguments of ssh. The host key is looked up under the node's name, whatever its address: since 8.1 in the node's
/// own list, before that in the cluster's, to which the system's list is a link.
fn ssh(root: &Root, node: &Node, arguments: &[&str]) -> Vec<String> {
    let name = &node.name;
    let mut options = vec![
        "BatchMode=yes".to_owned(),
        format!("HostKeyAlias={name}"),
        "ConnectTimeout=10".to_owned(),
        // A node that dies meanwhile is noticed after a minute.
        "ServerAliveInterval=15".to_owned(),
        "ServerAliveCountMax=4".to_owned(),
    ];
    let known_hosts = format!("/etc/pve/nodes/{name}/ssh_known_hosts");
    if root.resolve(&known_hosts).is_ok_and(|path| path.is_file()) {
        options.push(format!("UserKnownHostsFile={known_hosts}"));
        options.push("GlobalKnownHostsFile=none".to_owned());
    }
    let address = node.ip.map_or_else(|| name.to_string(), |ip| ip.to_string());
    let mut words: Vec<String> = ["-e", "none", "-T"].map(str::to_owned).into();
    words.extend(options.into_iter().flat_map(|option| ["-o".to_owned(), option]));
    words.extend([format!("root@{address}"), "--".to_owned(), PROGRAM.to_owned()]);
    words.extend(arguments.iter().map(ToString::to_string));
    words
}

/// Words that ssh only has once it is connected: what it started over there may go on.
const CONNECTED: [&str; 3] = ["closed by remote host", "not responding", "client_loop:"];

/// What ssh's last words mean.
fn why(err: &str, out: &str) -> RemoteError {
    let last = last_line(err);
    if last.contains("Host key verification failed") {
        // The line before tells which key, where it tells anything.
        RemoteError::HostKey(last)
    } else if last.contains("Permission denied") {
        RemoteError::Denied(last)
    } else if !out.is_empty() || CONNECTED.iter().any(|words| last.contains(words)) {
        RemoteError::BrokeOff(last)
    } else {
        RemoteError::Unreachable(last)
    }
}

fn last_line(text: &str) -> String {
    let line =
        text.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or("no reason was given");
    harmless(line).chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::super::NodeName;
    use super::*;

    fn node(ip: Option<&str>) -> Node {
        let name = NodeName::try_from("pve2".to_owned()).unwrap();
        Node { name, own: false, online: true, ip: ip.map(|ip| ip.parse().unwrap()) }
    }

    #[test]
    fn ssh_is_called_as_proxmox_calls_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let before = ssh(&root, &node(Some("fd00::2")), &["status", "--json"]);
        assert!(
            before
                .ends_with(&["root@fd00::2", "--", "pve-diff-backup", "status", "--json"].map(str::to_owned))
        );
        assert!(
            before.contains(&"HostKeyAlias=pve2".to_owned()) && before.contains(&"BatchMode=yes".to_owned())
        );
        assert!(!before.iter().any(|word| word.contains("KnownHosts")));
        fs_err::create_dir_all(dir.path().join("etc/pve/nodes/pve2")).unwrap();
        fs_err::write(dir.path().join("etc/pve/nodes/pve2/ssh_known_hosts"), "").unwrap();
        let since = ssh(&root, &node(None), &["status"]);
        assert!(since.contains(&"UserKnownHostsFile=/etc/pve/nodes/pve2/ssh_known_hosts".to_owned()));
        assert!(
            since.contains(&"GlobalKnownHostsFile=none".to_owned())
                && since.contains(&"root@pve2".to_owned())
        );
    }

    #[test]
    fn ssh_s_words_become_reasons() {
        assert!(matches!(why("x\nHost key verification failed.\r\n", ""), RemoteError::HostKey(_)));
        assert!(matches!(why("root@10.0.0.2: Permission denied (publickey).\n", ""), RemoteError::Denied(_)));
        let refused = why("ssh: connect to host 10.0.0.2 port 22: Connection refused\n", "");
        assert!(refused.to_string().contains("Connection refused"), "{refused}");
        for lost in [
            "Connection to 10.0.0.2 closed by remote host.\n",
            "client_loop: send disconnect: Broken pipe\r\n",
        ] {
            let why = why(lost, "");
            assert!(matches!(why, RemoteError::BrokeOff(_)) && why.may_go_on(), "{lost}");
        }
        assert!(matches!(why("", ""), RemoteError::Unreachable(_)));
    }
}
