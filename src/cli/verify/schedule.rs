//! `verify --enable` and `--disable`, and what a run tells that systemd started.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::Args;
use super::finding::Finding;
use super::report::Report;
use crate::cli::exit::{Exit, Stop};
use crate::cli::say::{chat, count, say};
use crate::host::notify::{self, Matter};
use crate::host::pmxcfs::Pmxcfs;
use crate::host::storage::{self, Place};
use crate::host::{Root, hint};
use crate::service::schedule;
use crate::text::shown;

/// The most failures that a message lists.
const TOLD: usize = 20;

/// The mark by which the journal knows a line as an error (sd-daemon(3)).
pub(super) const ERROR: &str = "<3>";

/// Has systemd run this command with the other options from now on.
pub(super) fn enable(args: &Args, root: &Path) -> anyhow::Result<ExitCode> {
    let root = Root::open(root)?;
    for id in &args.storage {
        let wrong = |reason: String| Stop(Exit::Usage, format!("{}: {reason}", shown(id)));
        match storage::backups(&root, id)? {
            Some(Place::Folder { .. }) => {}
            Some(Place::NoFiles { kind }) => {
                return Err(wrong(format!(
                    "a storage of type {}, which holds no files of backups",
                    shown(kind)
                ))
                .into());
            }
            None => return Err(wrong("there is no storage of that name".into()).into()),
        }
    }
    let options = options(args)?;
    schedule::enable(&root, &options)?;
    let what = match args.storage.as_slice() {
        [] => "all storages of this node".to_owned(),
        ids => ids.join(", "),
    };
    let told = format!(
        "systemd verifies the backups of {what} every day from now on; {} tells when next, {} shows what was found\n",
        schedule::next(),
        hint::ours("chains")
    );
    chat(&mut io::stdout(), told.as_bytes())?;
    Ok(Exit::Success.into())
}

/// Has systemd no longer run this command.
pub(super) fn disable(root: &Path) -> anyhow::Result<ExitCode> {
    let told = match schedule::disable(&Root::open(root)?)? {
        true => "systemd verifies no backups any more\n",
        false => "systemd did not verify backups, and does not\n",
    };
    chat(&mut io::stdout(), told.as_bytes())?;
    Ok(Exit::Success.into())
}

/// The command line of the runs: fulls are checked too, and nothing again that is unchanged and was found good lately.
///
/// # Errors
/// Fails where a path has a character that separates options there, or ends the line.
fn options(args: &Args) -> anyhow::Result<Vec<String>> {
    let mut options = vec!["--all".into(), "--resume".into(), format!("--max-age={}", args.max_age)];
    options.extend(args.bwlimit.map(|kib| format!("--bwlimit={kib}")));
    if args.jobs > 1 {
        options.push(format!("--jobs={}", args.jobs));
    }
    options.extend(args.ionice.map(|level| format!("--ionice={level}")));
    options.extend(args.restore.then(|| "--restore".into()));
    options.extend(args.extract.then(|| "--extract".into()));
    if let Some(dir) = &args.scratch {
        let path = std::path::absolute(dir)?;
        let plain = |c: char| c.is_alphanumeric() || "/._-+:@,=".contains(c);
        let text = path.to_str().filter(|path| path.chars().all(plain)).ok_or_else(|| {
            let text = format!(
                "--scratch {}: for systemd it must be of letters, digits and / . _ - + : @ , =",
                shown(dir)
            );
            Stop(Exit::Usage, text)
        })?;
        options.push(format!("--scratch={text}"));
    }
    options.extend(args.storage.iter().cloned());
    Ok(options)
}

/// The places that a run of systemd looks at where none is named: the storages on which this node keeps backups.
///
/// # Errors
/// Fails where it cannot be known what storages there are.
pub(super) fn storages(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let Some(cluster) = Pmxcfs::find(&Root::open(root)?)? else {
        anyhow::bail!("this is no host of Proxmox VE, so it has no storages: name them")
    };
    Ok(storage::for_backups(&cluster)?.into_iter().map(|it| it.id.into()).collect())
}

/// Tells people what a run of systemd found: of failures in any case, else those who want to know that all is well.
pub(super) fn tell(root: &Path, report: &Report, fulls: usize) -> anyhow::Result<()> {
    let root = Root::open(root)?;
    let (summary, failures) = (report.summary(fulls), &report.failures);
    if report.is_well() {
        if report.ok > 0 {
            notify::message(&root, Matter::Info, &format!("pve-diff-backup: {summary}"), &summary);
        }
        return Ok(());
    }
    let subject = match failures.len() {
        0 => "pve-diff-backup: not all backups could be verified".to_owned(),
        failed => format!("pve-diff-backup: {} NOT restorable", count(failed, "backup")),
    };
    let mut lines: Vec<String> = failures.iter().take(TOLD).map(Finding::line).collect();
    if failures.len() > TOLD {
        lines.push(format!("and {} more", failures.len() - TOLD));
    }
    lines.extend(report.refused.iter().map(|it| format!("{}: {}", it.argument, it.reason)));
    lines.push(summary);
    lines.push(format!(
        "\nA guest whose backup is damaged needs a new full one: vzdump VMID --fullbackup 0 --storage ID. All results: {}",
        hint::ours("chains")
    ));
    if !notify::message(&root, Matter::Error, &subject, &lines.join("\n")) {
        say!("warning: nobody could be told of it, neither by Proxmox VE's notifications nor by mail");
    }
    Ok(())
}
