//! Decides what each file should hold, from the surveyed contents alone. Nothing is read or written here.

use std::collections::BTreeMap;

use super::candidates::{found_line, list, most_similar};
use super::change::Change;
use super::insert::insert;
use super::patchset::{Fact, Generation, Hunk, PackageSpec, PatchSet, is_ours};
use super::pattern::Pattern;
use super::refusal::{Place, Refusal};
use super::survey::{FileView, Survey};
use super::text::{Line, lines, strip};
use crate::host::{Origin, Version, hint};

/// What `apply` would make of a host.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The set it follows.
    pub set: &'a PatchSet,
    /// The generation of each installed package, by its name.
    pub generations: BTreeMap<String, &'a Generation>,
    /// Every file of the set whose package is installed, then the payload.
    pub files: Vec<PlannedFile>,
    /// Optional packages that are not installed, with the ids of the hunks left out.
    pub skipped: BTreeMap<String, Vec<String>>,
    /// Installed packages whose release the set was not verified with: name, version, verified range.
    pub unverified: Vec<(String, String, String)>,
    /// Reasons against it. As long as there is one, nothing is written.
    pub refusals: Vec<Refusal>,
}

/// One file of a plan.
#[derive(Debug, Clone)]
pub struct PlannedFile {
    /// Its path relative to the root.
    pub path: String,
    /// The package that ships it; `None` for payload.
    pub package: Option<String>,
    /// How it stands.
    pub state: FileState,
    /// Whether it is, without our lines, as its package shipped it.
    pub origin: Option<Origin>,
    /// Where dpkg-divert put the package's own file, which is then not the one in use.
    pub diverted_to: Option<String>,
    /// The hunks that go into it.
    pub hunks: Vec<String>,
    /// What it holds now.
    pub current: Option<Vec<u8>>,
    /// What it holds without our lines.
    pub pristine: Option<Vec<u8>>,
    /// What it should hold; `None` where it is refused.
    pub patched: Option<Vec<u8>>,
}

/// How a file stands compared with a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FileState {
    /// It holds exactly what is planned.
    Patched,
    /// It holds no line of ours; a payload file does not exist.
    Unpatched,
    /// It holds lines of ours, but not those that are planned: an older version wrote them, or some were lost.
    Outdated,
    /// It is a file of Proxmox and does not exist.
    Missing,
    /// It is somebody else's, and lies where a file of ours should go.
    Foreign,
}

/// How a host stands as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Overall {
    /// Every file is as planned.
    Patched,
    /// No file holds anything of ours.
    Unpatched,
    /// Some files hold lines of ours and others do not, or an older version wrote them.
    Mixed,
    /// There is a reason against the plan.
    Unsupported,
}

/// Finds the one set whose own facts hold. The generations of its packages are chosen later, by the plan.
///
/// # Errors
/// [`Refusal::NotInstalled`], [`Refusal::NoSet`], [`Refusal::SeveralSets`].
pub fn choose<'a>(sets: &'a [PatchSet], survey: &Survey) -> Result<&'a PatchSet, Refusal> {
    // Optional packages aside, all sets want the same: report the first that is missing everywhere.
    let required = |set: &PatchSet| {
        let mut needed =
            set.packages.iter().filter(|(_, range)| !range.optional).map(|(name, _)| name.clone());
        needed.find(|name| !survey.packages.contains_key(name))
    };
    let mut failed = Vec::new();
    let mut matching = Vec::new();
    for set in sets {
        match set.facts.iter().find(|fact| !holds(fact, survey)) {
            None => matching.push(set),
            Some(fact) => failed.push((set.name.clone(), describe(fact))),
        }
    }
    if let Some(package) = sets.iter().map(required).next().flatten()
        && sets.iter().all(|set| required(set).is_some())
    {
        return Err(Refusal::NotInstalled { package });
    }
    matching.retain(|set| required(set).is_none());
    match matching[..] {
        [set] => Ok(set),
        [] => Err(Refusal::NoSet { failed }),
        _ => Err(Refusal::SeveralSets { sets: matching.iter().map(|set| set.name.clone()).collect() }),
    }
}

/// Whether a fact holds. It does also where nothing is known: where its package is not installed, or where the file is
/// missing although its package ships it. The plan then names the missing file.
fn holds(fact: &Fact, survey: &Survey) -> bool {
    is_unknown(fact, survey) || matches(fact, survey) == fact.present
}

fn is_unknown(fact: &Fact, survey: &Survey) -> bool {
    let is_missing = |file: &FileView| file.stripped.is_none() && (file.listed || file.diverted.is_some());
    !survey.packages.contains_key(&fact.package) || survey.files.get(&fact.file).is_some_and(is_missing)
}

fn matches(fact: &Fact, survey: &Survey) -> bool {
    let file = survey.files.get(&fact.file).and_then(|file| file.stripped.as_ref());
    file.is_some_and(|file| lines(&file.rest).any(|line| fact.pattern.matches(line.body)))
}

/// Finds the index of the generation whose facts hold. Where the facts leave a doubt, it gives the generation that the
/// installed version belongs to, together with the reason for the doubt.
///
/// A line by which a generation is recognised may be gone from a newer release. Then no generation fits, or several do, or
/// an older one does, whose hunks would go in without any warning. That is why the expected generation counts then: its hunks
/// name the line that is gone. A line by which only older generations are recognised does not matter.
fn choose_generation(
    name: &str,
    package: &PackageSpec,
    installed: &Version,
    survey: &Survey,
) -> (usize, Option<Refusal>) {
    let version = installed.to_string();
    let expected = package.generations.iter().rposition(|one| one.range.from <= *installed).unwrap_or(0);
    let mut fitting = Vec::new();
    let mut failed = Vec::new();
    for (place, generation) in package.generations.iter().enumerate() {
        match generation.facts.iter().find(|fact| !holds(fact, survey)) {
            None => fitting.push(place),
            Some(fact) => {
                let candidates = if place == expected { candidates(fact, survey) } else { String::new() };
                failed.push((generation.range.from.to_string(), describe(fact) + &candidates));
            }
        }
    }
    let package_name = name.to_owned();
    // Where one generation ends and the next begins is known to the release or so.
    let is_next_to = |one: &Generation| one.range.to.series().eq(installed.series());
    let is_guess = |place: &usize| package.generations[*place].facts.iter().any(|it| is_unknown(it, survey));
    match fitting[..] {
        [place] if place >= expected || is_next_to(&package.generations[place]) => (place, None),
        // Files are missing: the newest generation serves to name them.
        [.., newest] if fitting.iter().any(is_guess) => (newest, None),
        // The files and the release agree, whatever else the files would do for.
        _ if fitting.contains(&expected) => (expected, None),
        [] | [_] => (expected, Some(Refusal::NoGeneration { package: package_name, version, failed })),
        _ => {
            let names = fitting.iter().map(|place| package.generations[*place].range.from.to_string());
            let generations = names.collect();
            (expected, Some(Refusal::SeveralGenerations { package: package_name, version, generations }))
        }
    }
}

/// Lists the lines that are most like the one that a fact misses, as the end of a sentence.
fn candidates(fact: &Fact, survey: &Survey) -> String {
    let file = survey.files.get(&fact.file).and_then(|file| file.stripped.as_ref());
    match file {
        Some(file) if fact.present => {
            let all: Vec<Line> = lines(&file.rest).collect();
            let found = most_similar(&all, std::slice::from_ref(&fact.pattern));
            format!("; {}", list(&found.into_iter().map(|index| found_line(&all, index)).collect::<Vec<_>>()))
        }
        _ => String::new(),
    }
}

fn describe(fact: &Fact) -> String {
    let verb = if fact.present { "does not hold" } else { "holds" };
    format!("/{} ({}) {verb} the line `{}`", fact.file, fact.package, fact.pattern)
}

impl<'a> Plan<'a> {
    /// Plans what `set` would make of the host.
    pub fn new(set: &'a PatchSet, survey: &Survey) -> Self {
        let mut plan = Self {
            set,
            generations: BTreeMap::new(),
            files: Vec::new(),
            skipped: BTreeMap::new(),
            unverified: Vec::new(),
            refusals: Vec::new(),
        };
        // The place of each installed package's generation, and the doubts.
        let (mut places, mut doubts) = (BTreeMap::new(), Vec::new());
        for (name, package) in &set.packages {
            let Some(installed) = survey.packages.get(name) else { continue };
            let (place, doubt) = choose_generation(name, package, &installed.version, survey);
            places.insert(name.as_str(), place);
            plan.add_generation(name, &package.generations[place], &installed.version, survey);
            doubts.extend(doubt.map(|doubt| (name, doubt)));
        }
        let mut by_file: Vec<(&str, Vec<&Hunk>)> = Vec::new();
        for hunk in &set.hunks {
            let newest = set.packages[&hunk.package].generations.len() - 1;
            match places.get(hunk.package.as_str()) {
                None if hunk.generations.contains(&newest) => {
                    plan.skipped.entry(hunk.package.clone()).or_default().push(hunk.id.clone());
                }
                Some(place) if hunk.generations.contains(place) => {
                    match by_file.iter_mut().find(|(file, _)| *file == hunk.file) {
                        Some((_, hunks)) => hunks.push(hunk),
                        None => by_file.push((&hunk.file, vec![hunk])),
                    }
                }
                _ => {}
            }
        }
        for (path, hunks) in by_file {
            plan.add_file(path, &hunks, survey);
        }
        // What is gone says more than the doubt that came of it.
        for (package, doubt) in doubts {
            if !plan.refusals.iter().any(|refusal| refusal.place().is_some_and(|at| at.package == *package)) {
                plan.refusals.push(doubt);
            }
        }
        for payload in &set.payload {
            plan.add_payload(&payload.target, &payload.content, survey.files.get(&payload.target));
        }
        plan
    }

    fn add_generation(&mut self, name: &str, generation: &'a Generation, version: &Version, survey: &Survey) {
        if !generation.range.contains(version) {
            let verified = format!("{} to {}", generation.range.from, generation.range.to);
            self.unverified.push((name.to_owned(), version.to_string(), verified));
        }
        for package in generation.needs.iter().filter(|needed| !survey.packages.contains_key(*needed)) {
            self.refusals.push(Refusal::NotInstalled { package: package.clone() });
        }
        self.generations.insert(name.to_owned(), generation);
    }

    fn add_file(&mut self, path: &str, hunks: &[&Hunk], survey: &Survey) {
        let package = hunks[0].package.clone();
        let version = survey.packages.get(&package).map(|p| p.version.to_string()).unwrap_or_default();
        let place = |hunk: &Hunk, block: Option<&Pattern>| {
            Box::new(Place {
                package: hunk.package.clone(),
                version: version.clone(),
                file: path.to_owned(),
                hunk: hunk.id.clone(),
                block: block.map(Pattern::to_string),
                origin: survey.files.get(path).and_then(|view| view.origin),
            })
        };
        let missing = FileView::default();
        let view = survey.files.get(path).unwrap_or(&missing);
        let (patched, state) = match (&view.content, &view.stripped) {
            (Some(current), Some(stripped)) => {
                let patched = match insert(&stripped.rest, hunks, self.set.version, &place) {
                    Ok(patched) if strip(&patched).rest == stripped.rest => Some(patched),
                    Ok(_) => {
                        self.refusals.push(Refusal::NotRevertible { place: place(hunks[0], None) });
                        None
                    }
                    Err(refusals) => {
                        self.refusals.extend(refusals);
                        None
                    }
                };
                let state = match () {
                    () if patched.as_ref() == Some(current) => FileState::Patched,
                    () if stripped.markers.is_empty() => FileState::Unpatched,
                    () => FileState::Outdated,
                };
                (patched, state)
            }
            _ => {
                let next = match &view.diverted {
                    Some(diversion) => format!(
                        "dpkg-divert, by {}, moved the package's own to /{}: give it its name back",
                        diversion.by.as_deref().unwrap_or("the administrator"),
                        diversion.to
                    ),
                    None if view.listed => format!("restore it with `{}`", hint::ours("reinstall")),
                    None => "this release of the package does not ship it: install a newer pve-diff-backup"
                        .to_owned(),
                };
                self.refusals.push(Refusal::FileMissing { place: place(hunks[0], None), next });
                (None, FileState::Missing)
            }
        };
        self.files.push(PlannedFile {
            path: path.to_owned(),
            package: Some(package),
            state,
            origin: view.origin,
            diverted_to: view.diverted.as_ref().map(|diversion| diversion.to.clone()),
            hunks: hunks.iter().map(|hunk| hunk.id.clone()).collect(),
            current: view.content.clone(),
            pristine: view.stripped.as_ref().map(|stripped| stripped.rest.clone()),
            patched,
        });
    }

    fn add_payload(&mut self, target: &str, content: &[u8], view: Option<&FileView>) {
        let current = view.and_then(|view| view.content.clone());
        let state = match &current {
            None => FileState::Unpatched,
            Some(current) if current == content => FileState::Patched,
            Some(current) if is_ours(current) => FileState::Outdated,
            Some(_) => {
                self.refusals.push(Refusal::PayloadInTheWay { target: target.to_owned() });
                FileState::Foreign
            }
        };
        self.files.push(PlannedFile {
            path: target.to_owned(),
            package: None,
            state,
            origin: None,
            diverted_to: None,
            hunks: Vec::new(),
            current,
            pristine: None,
            patched: Some(content.to_owned()),
        });
    }

    /// How the host stands.
    pub fn overall(&self) -> Overall {
        let all = |state| self.files.iter().all(|file| file.state == state);
        match () {
            () if !self.refusals.is_empty() => Overall::Unsupported,
            () if all(FileState::Patched) => Overall::Patched,
            () if all(FileState::Unpatched) => Overall::Unpatched,
            () => Overall::Mixed,
        }
    }

    /// The changes that carry it out, where nothing speaks against it.
    ///
    /// # Errors
    /// All refusals.
    pub fn changes(&self) -> Result<Vec<Change>, &[Refusal]> {
        if !self.refusals.is_empty() {
            return Err(&self.refusals);
        }
        Ok(self
            .files
            .iter()
            .filter(|file| file.current != file.patched)
            .map(|file| Change {
                path: file.path.clone(),
                before: file.current.clone(),
                after: file.patched.clone(),
                mtime: None,
            })
            .collect())
    }

    /// The changes that carry it out on a pristine host, whatever is done of them already.
    pub fn from_pristine(&self) -> Vec<Change> {
        let change = |file: &PlannedFile| Change {
            path: file.path.clone(),
            before: file.pristine.clone(),
            after: file.patched.clone(),
            mtime: None,
        };
        self.files.iter().map(change).collect()
    }
}
