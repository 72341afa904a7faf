//! Reads clones of repositories. Only this file runs git, and it changes nothing in a clone.

use std::ffi::OsStr;
use std::io::{self, BufRead, Read, Write};
use std::path::{Path, PathBuf};

use crate::host::program::{Conversation, Program, ProgramError};

/// The largest file that is read, in bytes. Proxmox' largest (a change log of 25 years) has some 400 KiB.
const MAX_BLOB: u64 = 64 << 20;

/// The longest list of commits or files that is read, in bytes.
const MAX_OUTPUT: usize = 256 << 20;

/// Why a clone cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// git does not run to its end.
    #[error("{0}; it reads the clones")]
    Start(ProgramError),
    /// git broke off, or answered with something that cannot be read.
    #[error("git {what} in {}: {cause}", dir.display())]
    Run {
        /// The clone.
        dir: PathBuf,
        /// The command.
        what: String,
        /// What went wrong.
        cause: io::Error,
    },
    /// git said something that was not expected.
    #[error("git {what} in {}: {said}", dir.display())]
    Said {
        /// The clone.
        dir: PathBuf,
        /// The command.
        what: String,
        /// What it said.
        said: String,
    },
}

/// A commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Its id.
    pub id: String,
    /// Committer's time, in seconds since 1970.
    pub time: i64,
    /// First line of its message.
    pub subject: String,
}

/// A clone that is open for reading; one `git cat-file --batch` serves all reads.
#[derive(Debug)]
pub struct Clone {
    dir: PathBuf,
    objects: Conversation,
}

impl Clone {
    /// Opens the clone of `repository` below `clones`, where there is one: as `NAME/.git`, `NAME.git`, `NAME` (bare),
    /// or the same with the owner before the name (`proxmox+NAME/repo`).
    ///
    /// # Errors
    /// [`GitError`] where git does not start.
    pub fn find(clones: &Path, repository: &str) -> Result<Option<Self>, GitError> {
        let forms = [
            format!("{repository}/.git"),
            format!("{repository}.git"),
            repository.to_owned(),
            format!("proxmox+{repository}/repo"),
        ];
        let dir = forms.iter().map(|form| clones.join(form)).find(|dir| dir.join("objects").is_dir());
        dir.map(Self::open).transpose()
    }

    fn open(dir: PathBuf) -> Result<Self, GitError> {
        match git(&dir, &["cat-file", "--batch"]).converse() {
            Ok(objects) => Ok(Self { dir, objects }),
            Err(error) => Err(GitError::Start(error)),
        }
    }

    /// All commits of all branches that touch one of `paths`, newest first.
    ///
    /// # Errors
    /// [`GitError`]
    pub fn commits(&self, paths: &[&str]) -> Result<Vec<Commit>, GitError> {
        let mut arguments = vec!["log", "--all", "--full-history", "--format=%H %ct %s", "--"];
        arguments.extend(paths);
        let text = String::from_utf8_lossy(&self.output(&arguments)?).into_owned();
        text.lines()
            .map(|line| {
                let mut words = line.splitn(3, ' ');
                let commit = (words.next(), words.next().and_then(|time| time.parse().ok()), words.next());
                match commit {
                    (Some(id), Some(time), subject) => {
                        let subject = subject.unwrap_or_default().to_owned();
                        Ok(Commit { id: id.to_owned(), time, subject })
                    }
                    _ => Err(self.said("log", line)),
                }
            })
            .collect()
    }

    /// The files of a commit: path and blob id.
    ///
    /// # Errors
    /// [`GitError`]
    pub fn files(&self, commit: &str) -> Result<Vec<(String, String)>, GitError> {
        let listed = self.output(&["ls-tree", "-r", "-z", "--full-tree", commit])?;
        let mut files = Vec::new();
        for entry in listed.split(|byte| *byte == 0).filter(|entry| !entry.is_empty()) {
            // MODE SP "blob" SP ID TAB PATH. All paths that matter here are text.
            let Ok(text) = std::str::from_utf8(entry) else { continue };
            let parsed =
                text.split_once('\t').map(|(about, path)| (about.split(' ').collect::<Vec<_>>(), path));
            match parsed {
                Some((about, path)) if about.len() == 3 => {
                    // Links (120000) and submodules (commit) are not installed as they are.
                    if about[1] == "blob" && about[0] != "120000" {
                        files.push((path.to_owned(), about[2].to_owned()));
                    }
                }
                _ => return Err(self.said("ls-tree", text)),
            }
        }
        Ok(files)
    }

    /// What `object` (a blob's id, or `COMMIT:PATH`) holds; `None` where there is no such object.
    ///
    /// # Errors
    /// [`GitError`]
    pub fn read(&mut self, object: &str) -> Result<Option<Vec<u8>>, GitError> {
        let (mut line, mut content) = (String::new(), Vec::new());
        let asked = self.objects.ask(|requests, answers| {
            requests.write_all(format!("{object}\n").as_bytes())?;
            requests.flush()?;
            answers.read_line(&mut line)?;
            if line.ends_with(" missing\n") {
                return Ok(None);
            }
            let size = line.trim_end().rsplit_once(" blob ").and_then(|(_, size)| size.parse::<u64>().ok());
            match size {
                Some(size) if size <= MAX_BLOB => {
                    answers.take(size + 1).read_to_end(&mut content)?;
                    Ok(Some(size))
                }
                _ => Err(io::Error::other(format!("unexpected answer '{}'", line.trim_end()))),
            }
        });
        let size = asked.map_err(|cause| GitError::Run {
            dir: self.dir.clone(),
            what: format!("cat-file of {object}"),
            cause,
        })?;
        let Some(size) = size else { return Ok(None) };
        if content.len() as u64 != size + 1 || content.pop() != Some(b'\n') {
            return Err(self.said("cat-file", "its output ended early"));
        }
        Ok(Some(content))
    }

    fn output(&self, arguments: &[&str]) -> Result<Vec<u8>, GitError> {
        let what = arguments[0];
        let ran = git(&self.dir, arguments).keep(MAX_OUTPUT).run().map_err(GitError::Start)?;
        match (ran.succeeded(), ran.whole) {
            (true, true) => Ok(ran.out),
            (true, false) => Err(self.said(what, "it says more than is read")),
            (false, _) => Err(self.said(what, ran.err().trim())),
        }
    }

    fn said(&self, what: &str, said: &str) -> GitError {
        GitError::Said { dir: self.dir.clone(), what: what.to_owned(), said: said.to_owned() }
    }
}

fn git(dir: &Path, arguments: &[&str]) -> Program {
    let mut words: Vec<&OsStr> = ["-c", "safe.directory=*", "--git-dir"].map(OsStr::new).into();
    words.push(dir.as_os_str());
    words.extend(arguments.iter().map(OsStr::new));
    // A clone of somebody else's (of another user's, or a mirror) is only read: its configuration must not make git fetch
    // what is missing, by a command of its choice (the former variable is for git from 2.44 on).
    Program::new("git", words).env("GIT_NO_LAZY_FETCH", "1").env("GIT_ALLOW_PROTOCOL", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clone that lacks objects has git fetch them, from where and how its configuration says.
    #[test]
    fn a_clones_configuration_runs_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let trace = dir.path().join("ran");
        let sh = |script: &str| {
            let words = ["-c", script].map(OsStr::new);
            Program::new("sh", words)
                .dir(dir.path())
                .env("TRACE", &trace)
                .run()
                .is_ok_and(|ran| ran.succeeded())
        };
        let made =
            sh("git init -q x.git --bare && cd x.git && git config core.repositoryformatversion 1 && \
             git config extensions.partialClone origin && git config remote.origin.promisor true && \
             git config protocol.ext.allow always && git config remote.origin.url \"ext::touch $TRACE\"");
        if !made {
            println!("skipped: no git");
            return;
        }
        let object = "1".repeat(40);
        let mut clone = Clone::find(dir.path(), "x").unwrap().unwrap();
        assert!(!matches!(clone.read(&object), Ok(Some(_))));
        drop(clone);
        assert!(!trace.exists());
        // Without our care it runs, where git is recent enough to fetch at all.
        sh(&format!("echo {object} | git --git-dir x.git cat-file --batch"));
        if !trace.exists() {
            println!("skipped: this git fetches nothing");
        }
    }
}
