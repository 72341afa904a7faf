//! The structure of `src`, held against ARCHITECTURE.md: which room may import which, and that no files import each
//! other in a circle.
//!
//! A room is a folder of `src`. Arrows come from the code itself: every path that begins with `crate`, `super` or
//! `self`, in `use` and elsewhere, resolved to the file that defines the module. What a `mod.rs` merely hands on
//! (`pub use`) counts as an arrow to where it comes from. A module's own parts may use what it defines for them, so an
//! arrow from a module to one that contains it is none. Tests within the modules are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A module's path below the crate: `["matching", "cut"]`.
type Module = Vec<String>;

struct House {
    /// The tokens of each file, by its module.
    files: BTreeMap<Module, Vec<String>>,
    /// What a module hands on under a name of its own, and the path that it stands for.
    handed_on: BTreeMap<(Module, String), Module>,
}

impl House {
    fn read() -> House {
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut house = House { files: BTreeMap::new(), handed_on: BTreeMap::new() };
        let mut folders = vec![src.clone()];
        while let Some(folder) = folders.pop() {
            for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let text = fs::read_to_string(&path).unwrap();
                    house
                        .files
                        .insert(module(path.strip_prefix(&src).unwrap()), without_tests(tokens(&text)));
                }
            }
        }
        // The programs only call the library.
        house.files.retain(|module, _| module.first().is_none_or(|room| room != "bin"));
        let modules: Vec<Module> = house.files.keys().cloned().collect();
        for at in modules {
            for (public, path) in house.paths(&at) {
                if public && let Some(name) = path.last() {
                    house.handed_on.insert((at.clone(), name.clone()), path.clone());
                }
            }
        }
        house
    }

    /// All paths in a file, made absolute; whether each is in a `pub use`.
    fn paths(&self, at: &Module) -> Vec<(bool, Module)> {
        let tokens = &self.files[at];
        let mut found = Vec::new();
        let mut n = 0;
        while n < tokens.len() {
            let public = n > 0 && (tokens[n - 1] == "pub" || tokens[n - 1] == ")");
            match tokens[n].as_str() {
                "use" => {
                    n += 1;
                    let mut prefixes = vec![Vec::new()];
                    let mut path: Module = Vec::new();
                    while n < tokens.len() && tokens[n] != ";" {
                        match tokens[n].as_str() {
                            "{" => prefixes.push(path.clone()),
                            "," | "}" => {
                                found.extend(self.absolute(at, &path).map(|path| (public, path)));
                                if tokens[n] == "}" {
                                    prefixes.pop();
                                    path = Vec::new();
                                } else {
                                    path = prefixes.last().cloned().unwrap_or_default();
                                }
                            }
                            "as" => n += 1,
                            "::" => {}
                            word => path.push(word.to_owned()),
                        }
                        n += 1;
                    }
                    found.extend(self.absolute(at, &path).map(|path| (public, path)));
                }
                "crate" | "super" | "self" if tokens.get(n + 1).is_some_and(|next| next == "::") => {
                    let mut path = vec![tokens[n].clone()];
                    while tokens.get(n + 1).is_some_and(|next| next == "::") && n + 2 < tokens.len() {
                        path.push(tokens[n + 2].clone());
                        n += 2;
                    }
                    found.extend(self.absolute(at, &path).map(|path| (false, path)));
                }
                _ => {}
            }
            n += 1;
        }
        found
    }

    /// A path as it stands in a file, from the crate on; `None` where it leads to another crate.
    fn absolute(&self, at: &Module, path: &[String]) -> Option<Module> {
        let mut from = at.clone();
        let mut rest = path;
        match path.first()?.as_str() {
            "crate" => from.clear(),
            "self" => {}
            "super" => return self.absolute_from_parent(at, path),
            // A module below, as in `pub use child::Type`.
            child => {
                from.push(child.to_owned());
                if !self.files.contains_key(&from) {
                    return None;
                }
            }
        }
        rest = &rest[1..];
        from.extend(rest.iter().filter(|word| *word != "self" && *word != "*").cloned());
        Some(from)
    }

    fn absolute_from_parent(&self, at: &Module, path: &[String]) -> Option<Module> {
        let ups = path.iter().take_while(|word| *word == "super").count();
        let mut from = at[..at.len().checked_sub(ups)?].to_vec();
        from.extend(path[ups..].iter().filter(|word| *word != "self" && *word != "*").cloned());
        Some(from)
    }

    /// The file in which the last module of a path is defined, behind everything that is handed on.
    fn file(&self, path: &Module) -> Option<Module> {
        let mut path = path.clone();
        for _ in 0..8 {
            let known = (0..=path.len()).rev().find(|len| self.files.contains_key(&path[..*len]))?;
            let (file, rest) = path.split_at(known);
            let Some(target) =
                rest.first().and_then(|name| self.handed_on.get(&(file.to_vec(), name.clone())))
            else {
                return Some(file.to_vec());
            };
            path = target.iter().chain(&rest[1..]).cloned().collect();
        }
        None
    }

    /// Which files each file imports.
    fn arrows(&self) -> BTreeMap<Module, BTreeSet<Module>> {
        let to = |at: &Module| {
            let used = self.paths(at).into_iter().filter(|(public, _)| !public);
            used.filter_map(|(_, path)| self.file(&path)).filter(|file| !at.starts_with(file)).collect()
        };
        self.files.keys().map(|at| (at.clone(), to(at))).collect()
    }
}

fn module(path: &Path) -> Module {
    let path: PathBuf = path.with_extension("");
    let mut module: Module = path.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    if module.last().is_some_and(|last| last == "mod" || last == "lib") {
        module.pop();
    }
    module
}

/// Words and signs of a Rust source, without comments, strings and characters.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    for line in text.lines() {
        let mut chars = line.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '/' if chars.peek() == Some(&'/') => break,
                '"' => {
                    while let Some(c) = chars.next() {
                        match c {
                            '\\' => drop(chars.next()),
                            '"' => break,
                            _ => {}
                        }
                    }
                }
                ':' if chars.peek() == Some(&':') => {
                    chars.next();
                    tokens.push("::".into());
                }
                c if c.is_alphanumeric() || c == '_' => {
                    let mut word = String::from(c);
                    while let Some(c) = chars.next_if(|c| c.is_alphanumeric() || *c == '_') {
                        word.push(c);
                    }
                    tokens.push(word);
                }
                c if c.is_whitespace() => {}
                c => tokens.push(c.into()),
            }
        }
    }
    tokens
}

/// Cuts at the first `#[cfg(test)]` that is followed by a module: tests stand last.
fn without_tests(mut tokens: Vec<String>) -> Vec<String> {
    let test = ["#", "[", "cfg", "(", "test", ")", "]", "mod"];
    if let Some(at) = tokens.windows(test.len()).position(|window| window == test) {
        // `mod tests;` is one file of tests, behind which the module goes on.
        match tokens.get(at + test.len() + 1).map(String::as_str) {
            Some(";") => drop(tokens.drain(at..at + test.len() + 2)),
            _ => tokens.truncate(at),
        }
    }
    tokens
}

/// The rows of a table of arrows in ARCHITECTURE.md: a room, and the rooms that it may import. `head` is the table's first cell.
fn allowed(head: &str) -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).unwrap();
    let head = format!("| {head} | may import |");
    let table = text.split(&head).nth(1).unwrap_or_else(|| panic!("ARCHITECTURE.md has the table {head}"));
    let words = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').collect();
        (words(cells[1]).remove(0), words(cells[2]).into_iter().collect())
    })
    .collect()
}

/// Holds the arrows between the modules below `house` against a table of ARCHITECTURE.md.
fn check_rooms(head: &str, house: &[&str]) {
    let allowed = allowed(head);
    let room = |module: &Module| {
        let within = house.iter().zip(module).all(|(a, b)| a == b) && module.len() > house.len();
        within.then(|| module[house.len()].clone())
    };
    let mut found = BTreeMap::<String, BTreeSet<String>>::new();
    let mut wrong = Vec::new();
    for (from, tos) in House::read().arrows() {
        let Some(here) = room(&from) else { continue };
        assert!(allowed.contains_key(&here), "ARCHITECTURE.md does not name the room {}", from.join("::"));
        for to in &tos {
            let Some(other) = room(to).filter(|other| *other != here) else { continue };
            found.entry(here.clone()).or_default().insert(other.clone());
            if !allowed[&here].contains(&other) {
                wrong.push(format!("{} imports {}", from.join("::"), to.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that ARCHITECTURE.md does not allow:\n{}", wrong.join("\n"));
    // The table tells what is, not what could be.
    for (room, others) in &allowed {
        let unused: Vec<_> =
            others.iter().filter(|other| !found.get(room).is_some_and(|f| f.contains(*other))).collect();
        assert!(unused.is_empty(), "ARCHITECTURE.md lets {room} import {unused:?}, which it does not");
    }
    assert!(
        found.values().map(BTreeSet::len).sum::<usize>() > 8,
        "the reader of imports finds none: {found:?}"
    );
}

#[test]
fn rooms_import_only_what_architecture_md_allows() {
    check_rooms("room", &[]);
    check_rooms("room of `matching`", &["matching"]);
}

/// Files that reach each other, each such group once.
fn circles(arrows: &BTreeMap<Module, BTreeSet<Module>>) -> Vec<BTreeSet<Module>> {
    let reached = |from: &Module| {
        let mut seen = BTreeSet::new();
        let mut next: Vec<&Module> = arrows[from].iter().collect();
        while let Some(at) = next.pop() {
            if seen.insert(at.clone()) {
                next.extend(&arrows[at]);
            }
        }
        seen
    };
    let reach: BTreeMap<&Module, BTreeSet<Module>> = arrows.keys().map(|at| (at, reached(at))).collect();
    let groups: BTreeSet<BTreeSet<Module>> = arrows
        .keys()
        .filter(|at| reach[at].contains(*at))
        .map(|at| reach[at].iter().filter(|other| reach[other].contains(at)).cloned().collect())
        .collect();
    groups.into_iter().collect()
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let arrows = House::read().arrows();
    let found: Vec<BTreeSet<String>> = circles(&arrows)
        .iter()
        .map(|circle| circle.iter().map(|module| module.join("::")).collect())
        .collect();
    assert!(found.is_empty(), "files import each other in a circle:\n{found:#?}");
}

/// Whether a file can start a program: it names the crate duct, or the standard library's `process::Command`.
fn starts_programs(tokens: &[String]) -> bool {
    let is_command = |at: usize| {
        let names = tokens[at..].iter().take_while(|token| !matches!(token.as_str(), ";" | "}" | ")"));
        tokens[at - 2..at] == ["process", "::"] && names.into_iter().any(|name| name == "Command")
    };
    tokens.iter().any(|token| token == "duct") || (2..tokens.len()).any(is_command)
}

#[test]
fn one_file_starts_programs() {
    let starting: Vec<String> = House::read()
        .files
        .iter()
        .filter(|(module, _)| module.last().is_none_or(|name| name != "tests"))
        .filter(|(_, tokens)| starts_programs(tokens))
        .map(|(module, _)| module.join("::"))
        .collect();
    assert_eq!(starting, ["host::program"], "other files let host::program start their programs");
    for text in ["use std::process::Command;", "use std::process::{self, Command};", "duct::cmd!(\"x\")"] {
        assert!(starts_programs(&tokens(text)), "{text}");
    }
    for text in ["use std::process::{ExitCode};", "fn f() { std::process::exit(1) } clap::Command::new"] {
        assert!(!starts_programs(&tokens(text)), "{text}");
    }
}

/// The errors of a file whose own text repeats what their source says: everything that prints an error prints its causes
/// behind it.
fn repeated_causes(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for variant in text.split("#[error(").skip(1) {
        let (message, rest) = variant.split_once(")]").unwrap_or((variant, ""));
        let body = rest.split("\n}").next().unwrap_or_default();
        let marked = ["#[from]", "#[source]"].iter().find_map(|mark| body.split_once(mark));
        let field = marked.map(|(_, field)| field.trim_start()).map(|field| {
            field.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default().to_owned()
        });
        let named =
            |name: &str| message.contains(&format!("{{{name}")) || message.contains(&format!(".{name}:"));
        let repeats = match field {
            Some(field) => named("0") || named(&field) || named("source"),
            None => body.contains(" source:") && named("source"),
        };
        if repeats {
            found.push(message.to_owned());
        }
    }
    found
}

#[test]
fn no_error_repeats_its_cause() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = walkdir::WalkDir::new(src).into_iter().map(|entry| entry.unwrap().into_path());
    for path in files.filter(|path| path.extension().is_some_and(|extension| extension == "rs")) {
        let repeated = repeated_causes(&fs::read_to_string(&path).unwrap());
        assert_eq!(repeated, <[String; 0]>::default(), "{}", path.display());
    }
    let variant = |message: &str, field: &str| {
        repeated_causes(&format!("enum E {{\n    #[error({message})]\n    V {{ {field} }},\n}}\n")).len()
    };
    assert_eq!(variant("\"x: {source}\"", "source: io::Error"), 1);
    assert_eq!(variant("\"x: {0}\"", "#[from] io::Error"), 1);
    assert_eq!(variant("\"x: {error}\"", "#[source] error: io::Error"), 1);
    assert_eq!(variant("\"x\"", "source: io::Error"), 0);
    assert_eq!(variant("\"x: {cause}\"", "cause: io::Error"), 0);
    assert_eq!(variant("transparent", "#[from] io::Error"), 0);
}

/// A text that goes on in the next line of the source ends with `\`; where that is lost, it has the blanks of the indent.
#[test]
fn no_text_has_an_indent_within() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = walkdir::WalkDir::new(src).into_iter().map(|entry| entry.unwrap().into_path());
    for path in files.filter(|path| path.extension().is_some_and(|extension| extension == "rs")) {
        let text = fs::read_to_string(&path).unwrap();
        let mut texts =
            text.lines().map(str::trim).filter(|line| line.contains('"') && !line.starts_with("//"));
        let found = texts.find(|line| line.contains(&" ".repeat(16)));
        assert_eq!(found, None, "{}", path.display());
    }
}

#[test]
fn the_reader_sees_circles_and_what_is_handed_on() {
    let file = |text: &str| without_tests(tokens(text));
    let name = |text: &str| -> Module { text.split("::").map(str::to_owned).collect() };
    let mut house = House { files: BTreeMap::new(), handed_on: BTreeMap::new() };
    house.files.insert(name("a"), file("pub use x::Thing; mod x; mod y;"));
    house
        .files
        .insert(name("a::x"), file("use super::y::{self, One as Two}; // crate::b\nlet s = \"crate::b\";"));
    house
        .files
        .insert(name("a::y"), file("fn f() { super::x::g() }\n#[cfg(test)]\nmod tests { use crate::b::B; }"));
    house.files.insert(name("b"), file("use crate::a::{Thing, y::Other};"));
    house.handed_on.insert((name("a"), "Thing".into()), name("a::x::Thing"));
    let arrows = house.arrows();
    let to = |from: &str| arrows[&name(from)].iter().map(|module| module.join("::")).collect::<Vec<_>>();
    assert_eq!(to("b"), ["a::x", "a::y"]);
    assert_eq!((to("a::x"), to("a::y"), to("a")), (vec!["a::y".into()], vec!["a::x".into()], vec![]));
    assert_eq!(circles(&arrows), [BTreeSet::from([name("a::x"), name("a::y")])]);
}
