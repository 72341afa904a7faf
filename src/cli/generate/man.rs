//! Man pages, from the same definitions as `--help`.

use std::io::{self, Write};
use std::path::Path;

use clap::Command;
use clap_mangen::Man;

use super::super::exit::Exit;
use super::super::{EXAMPLES, compat, definition, verify};
use super::pve_xdelta3;

/// What the program reads and writes besides the patched files.
const FILES: [(&str, &str); 10] = [
    ("/etc/pve/pve-diff-backup.conf", "Settings of all nodes, see CONFIGURATION. It need not be there."),
    ("/etc/pve-diff-backup.conf", "Settings of this node, which count more. It need not be there."),
    ("/var/lib/dpkg", "dpkg's database: which packages are installed, and what their files should hold."),
    (
        "/var/lib/pve-diff-backup/applied.json",
        "What was applied, when, and the sha256 of each file before and after.",
    ),
    (
        "/var/lib/pve-diff-backup/applied.patch",
        "The same as a patch: patch -R -p1 undoes it without this program.",
    ),
    (
        "/var/lib/pve-diff-backup/journal.json",
        "There only while files are replaced; the next command deals with it.",
    ),
    (
        "/var/lib/pve-diff-backup/pending",
        "There only while an installation or upgrade could not patch the host: why. The next one tries again.",
    ),
    (
        "/var/lib/pve-diff-backup/told",
        "There only while the same lasts: a digest of the failure that root was told of, so that each is told once.",
    ),
    (
        "/var/lib/pve-diff-backup/verified",
        "What verify found, a line of JSON for each backup: when, whether it was good, and which files that holds for (name, size, \
         inode, time). It may be deleted.",
    ),
    (
        "/etc/pve/pve-diff-backup.json",
        "What backup jobs say of full backups, and which nodes know that option: nodes without our lines drop it from \
         jobs.cfg, and apply, each upgrade and each backup give it back from here.",
    ),
];

/// Each line that the files of settings can hold, with the text that explains it in the manual page.
const SETTINGS: [(&str, &str); 9] = [
    (
        "base-without-map: replace",
        "The default. A full backup that can only be read from its start and has no map (made by vzdump itself with zstd or \
         gzip, or compressed anew) is no base where the job would make a full backup with a map (zstd): a job makes that at \
         once, unless an older one with a map is within its days. Existing differentials against it stay as they are.",
    ),
    (
        "base-without-map: use",
        "It serves until it is as old as the job allows (fullbackup). Differentials against it take more time, and are larger where \
         data moved, up to several times as large. pve-diff-backup add-map gives such a full backup (zstd) a map, in its place; then \
         none of this holds for it.",
    ),
    (
        "largest-differential: 50%",
        "The default. Where the last differential takes more than this share of its full backup, the next backup is a full one, \
         with the reason in the task log: what has changed since is written once more each day, so a new full saves space. 1% to \
         9999%.",
    ),
    ("largest-differential: off", "Full backups are made by their age alone."),
    ("changed-blocks: off", "The default. Every backup reads all of a VM's disks."),
    (
        "changed-blocks: fleecing",
        "A differential backup of a running VM reads only what QEMU noted as changed since the last backup, in jobs that have \
         fleecing (Advanced, in the job's window), where that is certain: all is read otherwise, and the task log says why. \
         Proxmox VE 8.4 and later.",
    ),
    (
        "changed-blocks: auto",
        "The same also in jobs without fleecing, if a storage of the guest's disks is thin (LVM-thin, RBD, BTRFS, a directory, a \
         ZFS pool with thin provisioning): for these backups it holds the fleecing images.",
    ),
    (
        "changed-blocks-audit: 30",
        "The default. After so many backups in a row that read only what changed, one reads all, and what it finds is \
         compared with what QEMU noted. 1 to 999, or off.",
    ),
    (
        "storage: ID",
        "What is below this line, up to the next such line, holds for backups to the storage of this name, and goes before what \
         stands above the first one. What a node's file says goes before what the cluster's file says of the same.",
    ),
];

/// One page for each program, one for each command, as git has them.
pub(super) fn write(dir: &Path) -> io::Result<()> {
    // What follows the options in help has sections of its own here.
    pages(
        definition().after_long_help(""),
        &diff_backup()?,
        b".SH EXIT STATUS\nSee\n.BR pve\\-diff\\-backup (1).\n",
        dir,
    )?;
    pages(
        verify::command(),
        b".SH EXIT STATUS\n0: all are well. 1: some failed. 2: wrong usage, or nothing there to check.\n\
          .SH SEE ALSO\n.BR pve\\-diff\\-backup (1),\n.BR pve\\-xdelta3 (1)\n",
        b"",
        dir,
    )?;
    pages(pve_xdelta3(), &xdelta3()?, b".SH SEE ALSO\n.BR pve\\-xdelta3 (1)\n", dir)
}

/// The pages of a program and its commands, each with sections of its own (in roff) at the end.
fn pages(program: Command, end: &[u8], commands_end: &[u8], dir: &Path) -> io::Result<()> {
    let mut program = program.disable_help_subcommand(true);
    program.build();
    page(&program, end, dir)?;
    commands(&program, commands_end, dir)
}

/// The pages of the commands of a program, or of a command.
fn commands(of: &Command, end: &[u8], dir: &Path) -> io::Result<()> {
    of.get_subcommands().filter(|command| !command.is_hide_set()).try_for_each(|command| {
        page(command, end, dir)?;
        commands(command, end, dir)
    })
}

fn page(command: &Command, end: &[u8], dir: &Path) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let man = Man::new(command.clone()).title(name.to_uppercase()).section("1").manual("pve-diff-backup");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let after = command.get_after_long_help().or(command.get_after_help());
    if after.is_some_and(|text| !text.to_string().is_empty()) {
        man.render_extra_section(&mut page)?;
    }
    page.extend(end);
    fs_err::write(dir.join(format!("{name}.1")), page)
}

/// The sections of pve-diff-backup(1) that the definition does not hold.
fn diff_backup() -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    writeln!(page, ".SH EXAMPLES\n.nf\n{}.fi", roff(EXAMPLES))?;
    writeln!(page, ".SH CONFIGURATION")?;
    writeln!(
        page,
        "/etc/pve\\-diff\\-backup.conf holds a setting on each line; # begins a comment. What is not understood is left \
         out, with a warning in each backup's task log."
    )?;
    for (setting, what) in SETTINGS {
        writeln!(page, ".TP\n.B {}\n{}", roff(setting), roff(what))?;
    }
    writeln!(page, ".SH FILES")?;
    for (path, what) in FILES {
        writeln!(page, ".TP\n.I {}\n{}", roff(path), roff(what))?;
    }
    writeln!(page, ".SH EXIT STATUS")?;
    for (code, meaning) in Exit::TABLE {
        writeln!(page, ".TP\n.B {}\n{}", code as u8, roff(meaning))?;
    }
    Ok(page)
}

/// The sections of pve-xdelta3(1) on the command line of xdelta3.
fn xdelta3() -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    writeln!(page, ".SH XDELTA3'S COMMAND LINE\n.nf\n{}.fi", roff(compat::USAGE))?;
    writeln!(
        page,
        ".SH DIFFERENCES FROM XDELTA3\nCommands, options, defaults and exit codes are those of xdelta3 3.0.11, but:"
    )?;
    for difference in compat::DIFFERENCES {
        writeln!(page, ".IP \\(bu 2\n{}", roff(difference))?;
    }
    writeln!(page, ".SH EXIT STATUS OF XDELTA3'S COMMANDS")?;
    for (code, meaning) in compat::EXIT {
        writeln!(page, ".TP\n.B {code}\n{}", roff(meaning))?;
    }
    Ok(page)
}

/// Plain text for roff: hyphens that can be copied, no backslash or leading dot that is a request.
fn roff(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('-', "\\-");
    escaped
        .split_inclusive('\n')
        .map(|line| match line.starts_with(['.', '\'']) {
            true => format!("\\&{line}"),
            false => line.to_owned(),
        })
        .collect()
}
