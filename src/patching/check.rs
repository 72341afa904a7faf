//! Checks, before anything is written below the root, that the changed modules still load, and that our lines in pages and
//! modules have an effect. Perl itself loads the modules.
//!
//! Loading a module runs its code. On the running host that code runs anyway, as root and every minute. What lies below another root, or
//! in a package file, is somebody else's: it is loaded only where somebody says so ([`Trust`]). Perl has no way to
//! check a module without running what it holds (`perl -c` runs its BEGIN blocks and whatever it uses). What is not loaded is
//! still checked in two ways: each anchor must be there exactly once, and [`code::fault`] reads the module.
//!
//! The planned files are laid out in a temporary folder that comes first in perl's search path, then each changed
//! module is loaded from there. Loading, not `perl -c`: that fails even on untouched modules whose `use` is circular
//! (Storage.pm since Proxmox VE 8.4). What fails counts only where the untouched module passes the same test, since on
//! a half upgraded host, or in a tree, modules may miss what they need. Then a second, weaker test is made: the
//! module is compiled with empty stand-ins for what is missing. What fails there too is reported as not checkable.
//!
//! Environment: variables that let perl run other code are dropped; the working folder is `/`, so that a root given as a
//! relative path cannot matter.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::change::Change;
use super::refusal::Refusal;
use super::survey::Survey;
use super::{code, template};
use crate::host::scratch::STATE_DIR;
use crate::host::{Program, ProgramError, Root, Scratch};

/// Where Proxmox' modules lie, relative to the root.
const PERL_LIB: &str = "usr/share/perl5";

/// A module that takes longer does not load, because something hangs (a dead cluster file system, for example). Perl gets
/// the same limit (`alarm`), so that it ends even where this program was killed.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Compiles a file given as argument, with empty modules in place of those that cannot be found. Modules only:
/// perl's AutoLoader, given an empty file for each sub it looks for, would look for ever.
const COMPILE: &str = "BEGIN { alarm 120; push @INC, sub { return if $_[1] !~ /\\.pm\\z/; my $empty = '1;'; \
                       open(my $fh, '<', \\$empty) or die $!; $fh } } require $ARGV[0]; print 'loaded';";

/// How one module fared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Its file, relative to the root.
    pub path: String,
    /// The outcome.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// The outcome of a check that does not speak against the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "check", content = "reason")]
pub enum Outcome {
    /// It loads.
    Loads,
    /// It compiles with stand-ins for missing modules; it does not load as it is either, for this reason.
    Compiles(String),
    /// Nothing can be said: the untouched module fails in the same way.
    NotCheckable(String),
    /// It was not tried, as it belongs to another host or to a package file, whose code is not run.
    NotLoaded,
}

/// Whether code of other roots and of package files may run, and what helps perl to load it.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// Whether such code may run.
    pub foreign: bool,
    /// Folders with stand-ins for modules that are missing; they come before the host's own.
    pub libs: Vec<PathBuf>,
}

/// How modules are tried.
#[derive(Debug)]
pub enum Modules {
    /// Perl loads them, with `libs` in its search path. They are laid out in `scratch`.
    Load {
        /// Folders of modules.
        libs: Vec<PathBuf>,
        /// A folder of ours.
        scratch: Scratch,
    },
    /// Nothing of them is run.
    Leave,
}

impl Trust {
    /// How the modules of the host at `root` are tried, with the folders `packages` of unpacked package files before its
    /// own.
    ///
    /// # Errors
    /// [`CheckError`] where no temporary folder can be made.
    pub fn modules(&self, root: &Root, packages: &[PathBuf]) -> Result<Modules, CheckError> {
        if !self.foreign && (!root.is_running_host() || !packages.is_empty()) {
            return Ok(Modules::Leave);
        }
        let scratch = Scratch::new().map_err(|cause| CheckError { path: std::env::temp_dir(), cause })?;
        Ok(self.load(root, packages, scratch))
    }

    /// The same for a run that holds the lock of that host: what it lays out lies in that host's own folder, where the next
    /// run finds what this one may leave.
    ///
    /// # Errors
    /// As [`Trust::modules`].
    pub fn modules_at(&self, root: &Root) -> Result<Modules, CheckError> {
        if !self.foreign && !root.is_running_host() {
            return Ok(Modules::Leave);
        }
        let path = root.dir().join(STATE_DIR);
        let dir = root.resolve(STATE_DIR).map_err(|error| io::Error::other(error.to_string()));
        let scratch = dir.and_then(|dir| Scratch::below(&dir)).map_err(|cause| CheckError { path, cause })?;
        Ok(self.load(root, &[], scratch))
    }

    fn load(&self, root: &Root, packages: &[PathBuf], scratch: Scratch) -> Modules {
        // Perl itself knows those of the running host, behind folders that an administrator may have put before them.
        let own = (!root.is_running_host()).then(|| root.dir().join(PERL_LIB));
        let libs = self.libs.iter().chain(packages).cloned().chain(own).collect();
        Modules::Load { libs, scratch }
    }
}

/// Why the check itself cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot lay out the changed modules for checking them: {}: {cause}", path.display())]
pub struct CheckError {
    /// The file or folder.
    pub path: PathBuf,
    /// What the system said.
    pub cause: io::Error,
}

/// Checks the modules and pages that `changes` creates or replaces and `wanted` wants, with all changes in place.
/// `progress` is told each path beforehand.
///
/// # Errors
/// [`CheckError`]. What is broken by us comes back as refusals.
pub fn files(
    how: &Modules,
    survey: &Survey,
    changes: &[Change],
    wanted: impl Fn(&str) -> bool,
    mut progress: impl FnMut(&str),
) -> Result<(Vec<Checked>, Vec<Refusal>), CheckError> {
    let mut refusals = Vec::new();
    for change in changes {
        let Some(after) = &change.after else { continue };
        let said = match () {
            () if is_page(&change.path) => template::fault(after),
            () if module_file(&change.path).is_some() => code::fault(after),
            () => None,
        };
        refusals.extend(said.map(|said| Refusal::Misplaced {
            owner: owner(survey, &change.path),
            file: change.path.clone(),
            said,
        }));
    }
    let created = |change: &&Change| change.after.is_some() && module_file(&change.path).is_some();
    let Modules::Load { libs, scratch } = how else {
        let not_loaded = |change: &Change| Checked { path: change.path.clone(), outcome: Outcome::NotLoaded };
        let of_interest = changes.iter().filter(created).filter(|change| wanted(&change.path));
        return Ok((of_interest.map(not_loaded).collect(), refusals));
    };
    let (staged, untouched) = (Tree::new(scratch, "staged")?, Tree::new(scratch, "untouched")?);
    let mut modules = Vec::new();
    for change in changes {
        let (Some(module), Some(after)) = (module_file(&change.path), &change.after) else { continue };
        staged.add(module, after)?;
        // What is not ours, as it is without our lines: it may already carry some.
        let pristine =
            survey.files.get(&change.path).filter(|view| !view.payload).and_then(|v| v.stripped.as_ref());
        if let Some(pristine) = pristine {
            untouched.add(module, &pristine.rest)?;
        }
        modules.push((change.path.as_str(), module, pristine.is_some()));
    }
    let mut checked = Vec::new();
    for (path, module, has_untouched) in modules.into_iter().filter(|(path, ..)| wanted(path)) {
        progress(path);
        match check(libs, &staged, has_untouched.then_some(&untouched), module) {
            Ok(outcome) => checked.push(Checked { path: path.to_owned(), outcome }),
            Err(said) => refusals.push(Refusal::ModuleBroken {
                owner: owner(survey, path),
                file: path.to_owned(),
                said,
            }),
        }
    }
    Ok((checked, refusals))
}

/// The package of a file with its version, for messages; nothing for a file of ours.
fn owner(survey: &Survey, path: &str) -> String {
    let package = survey.files.get(path).and_then(|view| survey.packages.get(view.package.as_ref()?));
    package.map(|package| format!("{} {}: ", package.name, package.version)).unwrap_or_default()
}

/// Whether a file is a web page's template.
fn is_page(path: &str) -> bool {
    path.ends_with(".tpl") || path.ends_with(".html")
}

/// The name by which perl would `require` a file, where it is a module.
fn module_file(path: &str) -> Option<&str> {
    path.strip_prefix(PERL_LIB)?.strip_prefix('/').filter(|module| module.ends_with(".pm"))
}

/// Checks one module; `Err` holds what perl said where we broke it.
fn check(libs: &[PathBuf], staged: &Tree, untouched: Option<&Tree>, module: &str) -> Result<Outcome, String> {
    let passes_untouched = |how: How| untouched.is_none_or(|tree| run(libs, tree, module, how).is_ok());
    let reason = match run(libs, staged, module, How::Load) {
        Ok(()) => return Ok(Outcome::Loads),
        Err(Failed::NoPerl(reason)) => return Ok(Outcome::NotCheckable(reason)),
        Err(Failed::Said(said)) if untouched.is_some() && passes_untouched(How::Load) => return Err(said),
        Err(Failed::Said(said)) => said,
    };
    match run(libs, staged, module, How::Compile) {
        Ok(()) => Ok(Outcome::Compiles(reason)),
        Err(Failed::Said(said)) if passes_untouched(How::Compile) => Err(said),
        Err(_) => Ok(Outcome::NotCheckable(reason)),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Load,
    Compile,
}

enum Failed {
    NoPerl(String),
    Said(String),
}

/// Lets perl load `module` with `tree` first in its search path.
fn run(libs: &[PathBuf], tree: &Tree, module: &str, how: How) -> Result<(), Failed> {
    let script = match how {
        How::Load => "BEGIN { alarm 120 } require $ARGV[0]; print 'loaded';",
        How::Compile => COMPILE,
    };
    let arguments: [OsString; 6] =
        ["-I".into(), tree.lib().into_os_string(), "-e".into(), script.into(), "--".into(), module.into()];
    let mut path = OsString::new();
    for lib in libs {
        if !path.is_empty() {
            path.push(":");
        }
        path.push(lib);
    }
    let perl = Program::new("perl", arguments).dir("/").env("PERL5LIB", path).limit(TIMEOUT).merged();
    match perl.run() {
        Ok(ran) if ran.succeeded() && ran.out.ends_with(b"loaded") => Ok(()),
        Ok(ran) => Err(Failed::Said(shorten(&ran.out()))),
        Err(ProgramError::Start { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => {
            Err(Failed::NoPerl("there is no perl here".to_owned()))
        }
        Err(error @ ProgramError::Start { .. }) => Err(Failed::NoPerl(error.to_string())),
        Err(error @ ProgramError::Slow { .. }) => Err(Failed::Said(error.to_string())),
    }
}

/// The first line of what perl said (the others only repeat who required whom), without its search path.
fn shorten(said: &str) -> String {
    let line = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("nothing was said");
    let (before, after) = line.split_once(" (@INC").unwrap_or((line, ""));
    let after = after.split_once(')').map_or("", |(_, after)| after);
    format!("{before}{after}").chars().take(400).collect()
}

/// A folder laid out as one of perl's.
struct Tree {
    dir: PathBuf,
}

impl Tree {
    fn new(scratch: &Scratch, name: &str) -> Result<Self, CheckError> {
        let made = scratch.folder(name);
        Ok(Self { dir: made.map_err(|cause| CheckError { path: scratch.path().join(name), cause })? })
    }

    fn lib(&self) -> PathBuf {
        self.dir.clone()
    }

    fn add(&self, module: &str, content: &[u8]) -> Result<(), CheckError> {
        let path = self.dir.join(module);
        let written = std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))
            .and_then(|()| std::fs::write(&path, content));
        written.map_err(|cause| CheckError { path, cause })
    }
}
