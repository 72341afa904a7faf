//! Tells people who are not there: through the journal, and through Proxmox VE's notifications or a mail.
//!
//! Nothing here fails or blocks its caller: whoever installs packages must not wait for a mail server.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use super::program::Program;
use super::root::Root;

/// Where the journal (or syslog) listens.
const JOURNAL: &str = "/dev/log";

/// Facility daemon (RFC 5424, 6.2.1).
const DAEMON: u8 = 3;

/// How long a mail server may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Our text as Proxmox VE's notifications want it (named templates, since pve-manager 8.2.3); the package brings it.
const TEMPLATE: &str = "usr/share/pve-manager/templates/default/pve-diff-backup-body.txt.hbs";

/// A template of Proxmox VE's own, which tells that templates have names here.
const NAMED: &str = "usr/share/pve-manager/templates/default/vzdump-subject.txt.hbs";

/// Hands the arguments to Proxmox VE, whose administrator has said who gets what and how. Before 8.2.3, the templates
/// themselves are handed over instead of their name. Before 8.1 the first argument would be the one who gets it: that
/// fails, as nobody has such a name.
const PERL: &str = "use PVE::INotify; use PVE::Notify; my ($named, $severity, $subject, $text) = @ARGV; \
                    my $node = PVE::INotify::nodename(); \
                    PVE::Notify::notify($severity, \
                    $named ? 'pve-diff-backup' : ('{{subject}} ({{hostname}})', '{{text}}'), \
                    { hostname => $node, subject => $subject, text => $text }, \
                    { type => 'pve-diff-backup', hostname => $node });";

/// How much a message matters, by the words of Proxmox VE's notifications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matter {
    /// Something does not work.
    Error,
    /// All is well. Only Proxmox VE's notifications get it, as everybody can say there that it is not wanted.
    Info,
}

/// RFC 5424's severities as far as they are used.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub enum Severity {
    /// Something does not work.
    Error = 3,
    /// Something happened that people should be able to find.
    Notice = 5,
}

/// Writes to the running host's journal, where somebody listens (not in a chroot).
pub fn journal(root: &Root, severity: Severity, text: &str) {
    if root.is_running_host() {
        let priority = DAEMON * 8 + severity as u8;
        let message = format!("<{priority}>pve-diff-backup: {text}");
        let _ = UnixDatagram::unbound().and_then(|socket| socket.send_to(message.as_bytes(), JOURNAL));
    }
}

/// Sends one message through Proxmox VE's notifications, or else as a mail to root. Tells whether anybody took it.
pub fn message(root: &Root, matter: Matter, subject: &str, text: &str) -> bool {
    if !root.is_running_host() {
        return false;
    }
    let is_there = |path| root.resolve(path).is_ok_and(|path| path.exists());
    let through_proxmox = || {
        let severity = if matter == Matter::Error { "error" } else { "info" };
        let named = if is_there(NAMED) { "1" } else { "" };
        is_there(TEMPLATE) && runs(&Program::new("perl", ["-e", PERL, named, severity, subject, text]), "")
    };
    let by_mail = || {
        let mail = format!(
            "From: pve-diff-backup <root>\nTo: root\nSubject: {subject}\nAuto-Submitted: auto-generated\n\
             Content-Type: text/plain; charset=UTF-8\nContent-Transfer-Encoding: 8bit\n\n{text}\n"
        );
        let sendmail = ["usr/sbin/sendmail", "usr/bin/sendmail"]
            .into_iter()
            .filter_map(|path| root.resolve(path).ok())
            .find(|path| path.exists());
        sendmail.is_some_and(|program| runs(&Program::new(program, ["-i", "--", "root"]), &mail))
    };
    through_proxmox() || (matter == Matter::Error && by_mail())
}

/// Whether `program`, which reads `input`, succeeds in time. What it prints is dropped.
fn runs(program: &Program, input: &str) -> bool {
    program.clone().limit(PATIENCE).keep(0).run_with(input).is_ok_and(|ran| ran.succeeded())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_host_is_told_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        std::fs::create_dir_all(dir.path().join("usr/sbin")).unwrap();
        std::os::unix::fs::symlink("/bin/true", dir.path().join("usr/sbin/sendmail")).unwrap();
        assert!(!message(&root, Matter::Error, "s", "t"));
    }

    #[test]
    fn only_success_counts() {
        assert!(runs(&Program::new("sh", ["-c", "cat >/dev/null"]), "x"));
        assert!(!runs(&Program::new("sh", ["-c", "exit 3"]), ""));
        assert!(!runs(&Program::new("/nonexistent/program", [""]), ""));
    }
}
