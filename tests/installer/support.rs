//! A small Proxmox-like host in a temporary folder, and a patch set for it.
//!
//! Both are written for these tests and hold nothing of Proxmox but the names of its packages.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub const STORAGE: &str = "usr/share/perl5/PVE/Storage.pm";
pub const VZDUMP: &str = "usr/share/perl5/PVE/VZDump.pm";
pub const CREATE: &str = "usr/share/perl5/PVE/LXC/Create.pm";
pub const INDEX: &str = "usr/share/pve-manager/index.html.tpl";
pub const PAYLOAD: &str = "usr/share/perl5/PVE/VZDump/Ours/Differential.pm";

/// The program that our lines call; not run on a host that is not the running one.
pub const HELPER: &str = "usr/bin/pve-xdelta3";

const STORAGE_PM: &str = "\
package PVE::Storage;
use strict;
use warnings;
our $RE = qr/\\.(tgz)/;

sub archive_info {
    my ($archive) = @_;
    return { name => $archive };
}

sub other_info {
    my ($archive) = @_;
    return $archive;
}
1;
";

const VZDUMP_PM: &str = "\
package PVE::VZDump;
use strict;
use warnings;
use PVE::Storage;

sub exec_backup_task {
    my ($self, $task) = @_;
    if ($task) {
\t$task->{vmtype} = 'x';
    }
    return 1;
}
1;
";

const CREATE_PM: &str = "package PVE::LXC::Create;\nuse strict;\n\nsub restore {\n    return 1;\n}\n1;\n";
const INDEX_TPL: &str = "<html>\n  <script src=\"/lib.js?ver=[% version %]\"></script>\n</html>\n";

pub const PATCHSET: &str = r#"
name: demo
version: 1
title: hosts of these tests
packages:
  pve-manager: {from: "8.0", to: "9.2.11"}
  libpve-storage-perl: {from: "8.0", to: "9.1.7"}
  pve-container: {from: "5.0", to: "6.1", optional: true}
facts:
  - {package: libpve-storage-perl, file: usr/share/perl5/PVE/Storage.pm, has: '^our $RE = ...'}
payload:
  - {source: Differential.pm, target: usr/share/perl5/PVE/VZDump/Ours/Differential.pm}
hunks:
  - id: extension
    package: libpve-storage-perl
    file: usr/share/perl5/PVE/Storage.pm
    anchor: '^our $RE = ...'
    indent: anchor
    insert: |
      $RE = qr/$RE|vcdiff/;
  - id: archive-info
    package: libpve-storage-perl
    file: usr/share/perl5/PVE/Storage.pm
    within: 'sub archive_info {'
    anchor: 'my ($archive) = @_;'
    insert: |
      if ($archive =~ /vcdiff/) {
          return { name => 'ours' };
      }
  - id: choose
    package: pve-manager
    file: usr/share/perl5/PVE/VZDump.pm
    within: 'sub exec_backup_task {'
    anchor: '$task->{vmtype} = ...'
    indent: anchor
    insert: |
      require PVE::VZDump::Ours::Differential;
  - id: restore
    package: pve-container
    file: usr/share/perl5/PVE/LXC/Create.pm
    anchor: '^sub restore {'
    insert: |
      my $ours = 1;
  - id: script
    package: pve-manager
    file: usr/share/pve-manager/index.html.tpl
    anchor: '<script src="/lib.js...'
    indent: anchor
    insert: |
      <script src="/ours.js?ver=@hash:Differential.pm@"></script>
"#;

const PAYLOAD_PM: &str =
    "# Part of pve-diff-backup.\npackage PVE::VZDump::Ours::Differential;\nuse strict;\n1;\n";

pub use pve_diff_backup::patching::sha256_hex;

/// What a tree holds: kind, mode, owner, group and content of everything in it, by path.
pub type Snapshot = BTreeMap<String, (u32, u32, u32, Vec<u8>)>;

/// A host and its patch sets in a temporary folder.
pub struct Host {
    dir: tempfile::TempDir,
    name: String,
}

impl Host {
    /// A host with all packages, none of its files touched.
    pub fn new() -> Self {
        Self::named("root")
    }

    /// The same in a folder called `name`.
    pub fn named(name: &str) -> Self {
        let host = Self { dir: tempfile::tempdir().unwrap(), name: name.to_owned() };
        host.write_patches("demo/patchset.yaml", PATCHSET);
        host.write_patches("payload/Differential.pm", PAYLOAD_PM);
        host.write("var/lib/dpkg/status", "");
        host.install(
            "pve-manager",
            "9.1.2",
            &[(VZDUMP, VZDUMP_PM.as_bytes()), (INDEX, INDEX_TPL.as_bytes())],
        );
        host.install("libpve-storage-perl", "9.1.0", &[(STORAGE, STORAGE_PM.as_bytes())]);
        host.install("pve-container", "6.0.1", &[(CREATE, CREATE_PM.as_bytes())]);
        host.write(HELPER, "");
        chmod(&host.path(HELPER), 0o755);
        host
    }

    pub fn root(&self) -> PathBuf {
        self.dir.path().join(&self.name)
    }

    pub fn patches(&self) -> PathBuf {
        self.dir.path().join("patches")
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub fn write_patches(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.patches().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub fn read(&self, path: &str) -> Vec<u8> {
        fs::read(self.path(path)).unwrap()
    }

    pub fn text(&self, path: &str) -> String {
        String::from_utf8(self.read(path)).unwrap()
    }

    /// Edits a file as a person would.
    pub fn edit(&self, path: &str, from: &str, to: &str) {
        let text = self.text(path);
        assert!(text.contains(from), "{path} holds no {from:?}");
        self.write(path, text.replacen(from, to, 1));
    }

    /// Adds a package to dpkg's database, and its files (again, where it is there already).
    pub fn install(&self, package: &str, version: &str, files: &[(&str, &[u8])]) {
        let mut status: Vec<String> = String::from_utf8(self.read("var/lib/dpkg/status"))
            .unwrap()
            .split_terminator("\n\n")
            .filter(|stanza| !stanza.starts_with(&format!("Package: {package}\n")))
            .map(str::to_owned)
            .collect();
        status.push(format!(
            "Package: {package}\nStatus: install ok installed\nArchitecture: all\nVersion: {version}"
        ));
        self.write("var/lib/dpkg/status", status.join("\n\n") + "\n\n");
        let (mut list, mut sums) = (String::new(), String::new());
        for (path, content) in files {
            self.write(path, content);
            list += &format!("/{path}\n");
            sums += &format!("{}  {path}\n", pve_diff_backup::host::dpkg::md5_hex(content));
        }
        self.write(&format!("var/lib/dpkg/info/{package}.list"), list);
        self.write(&format!("var/lib/dpkg/info/{package}.md5sums"), sums);
    }

    /// Removes a package and its files.
    pub fn remove(&self, package: &str, files: &[&str]) {
        let status = self.text("var/lib/dpkg/status");
        let kept: Vec<&str> = status
            .split_terminator("\n\n")
            .filter(|stanza| !stanza.starts_with(&format!("Package: {package}\n")))
            .collect();
        self.write("var/lib/dpkg/status", kept.join("\n\n") + "\n\n");
        files.iter().for_each(|file| fs::remove_file(self.path(file)).unwrap());
    }

    /// The program with `--root` and `--patches` of this host, whose modules may be loaded.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let loads = ["apply", "test", "new-version"].iter().any(|name| arguments.first() == Some(name));
        match arguments {
            [name, rest @ ..] if loads => self.wary(&[&[*name, "--load-modules"], rest].concat()),
            _ => self.wary(arguments),
        }
    }

    /// The same without leave to load any module.
    pub fn wary(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pve-diff-backup"));
        command.arg("--root").arg(self.root());
        if arguments.first() != Some(&"chains") {
            command.arg("--patches").arg(self.patches());
        }
        command.args(arguments);
        command.env_remove("PERL5LIB");
        command
    }

    /// Runs the program.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command(arguments).output().unwrap())
    }

    pub fn snapshot(&self) -> Snapshot {
        snapshot(&self.root())
    }
}

/// What a run of the program left.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Demands success.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.code(0)
    }

    /// Demands an exit code.
    #[track_caller]
    pub fn code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    /// Demands that nothing went to standard error.
    #[track_caller]
    pub fn says_nothing(self) -> Self {
        assert_eq!(self.err, "", "{self:#?}");
        self
    }

    /// Demands words in what went to standard error.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Self {
        words.iter().for_each(|word| assert!(self.err.contains(word), "no {word:?} in {self:#?}"));
        self
    }
}

/// Everything below `root` but time stamps.
pub fn snapshot(root: &Path) -> Snapshot {
    walkdir::WalkDir::new(root)
        .min_depth(1)
        .into_iter()
        .map(|entry| {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            let content = match () {
                () if metadata.is_file() => fs::read(entry.path()).unwrap(),
                () if metadata.is_symlink() => {
                    fs::read_link(entry.path()).unwrap().into_os_string().into_encoded_bytes()
                }
                () => Vec::new(),
            };
            let path = entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            (path, (metadata.mode(), metadata.uid(), metadata.gid(), content))
        })
        .collect()
}

pub fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Whether a program is there.
pub fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}
