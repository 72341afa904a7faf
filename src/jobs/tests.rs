//! The rules as tables: what happened, in which order, and what must become of the option.

use super::*;

const JOBS: &str = "vzdump: a\n\tschedule 02:00\n\tfullbackup 7\n\nvzdump: b\n\tschedule 03:00\n";

/// What can happen to a cluster of pve1, pve2 (and pve3, which never hears of us).
#[derive(Debug, Clone, Copy)]
enum Event {
    /// This node runs `apply`, or a backup starts on it.
    Keep(&'static str),
    /// A release comes to this node that cannot be patched, and our trigger says so.
    Fails(&'static str),
    /// This node reverts.
    Leave(&'static str),
    /// A node without our lines writes jobs.cfg.
    StockWrites,
    /// The job's value is set through our lines.
    Sets(&'static str, u32),
    /// The value is removed through our lines, or the job is made (anew).
    Removes(&'static str),
    /// Somebody's editor.
    Edits(&'static str, &'static str),
    /// A job is deleted by a node without our lines.
    StockDeletes(&'static str),
}
use Event::*;

struct Cluster {
    members: BTreeSet<String>,
    jobs: String,
    cron: String,
    memory: Memory,
    now: u64,
}

impl Cluster {
    fn new(members: &[&str]) -> Self {
        let members = members.iter().map(|name| (*name).to_owned()).collect();
        Self { members, jobs: JOBS.into(), cron: String::new(), memory: Memory::default(), now: 1000 }
    }

    fn run(&mut self, mode: Mode, node: &str, patched: bool) -> Vec<Note> {
        self.now += 10;
        let situation = Situation {
            mode,
            node,
            members: &self.members,
            patched,
            now: self.now,
            program: "1",
            jobs: Some(self.jobs.as_bytes()),
            cron: Some(self.cron.as_bytes()),
            memory: &self.memory,
        };
        let first = plan(&situation);
        self.memory = first.memory;
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        self.jobs = first.jobs.map_or(self.jobs.clone(), text);
        self.cron = first.cron.map_or(self.cron.clone(), text);
        // Once more changes nothing.
        let (jobs, cron) = (self.jobs.clone(), self.cron.clone());
        let again = plan(&Situation {
            jobs: Some(jobs.as_bytes()),
            cron: Some(cron.as_bytes()),
            memory: &self.memory,
            ..situation_of(mode, node, &self.members, patched, self.now)
        });
        let still: Vec<&Note> =
            again.notes.iter().filter(|note| !matches!(note, Note::CronOdd { .. })).collect();
        assert_eq!((again.jobs, again.cron, still), (None, None, vec![]), "not at rest");
        assert!(again.memory.same_as(&self.memory));
        first.notes
    }

    fn happens(&mut self, event: Event) {
        match event {
            Keep(node) => drop(self.run(Mode::Keep, node, true)),
            Fails(node) => drop(self.run(Mode::Keep, node, false)),
            Leave(node) => drop(self.run(Mode::Leave, node, false)),
            StockWrites => {
                self.jobs = String::from_utf8(sections::without(self.jobs.as_bytes())).unwrap();
            }
            Sets(id, days) => {
                self.happens(Removes(id));
                self.memory.jobs.insert(id.to_owned(), days);
                self.jobs = String::from_utf8(sections::with(self.jobs.as_bytes(), &[(id, days)])).unwrap();
            }
            // As PVE::VZDump::Differential::Jobs::decided, and then jobs.cfg is written.
            Removes(id) => {
                self.memory.jobs.remove(id);
                let section = format!("vzdump: {id}\n");
                let start = self.jobs.find(&section).unwrap();
                let end = self.jobs[start..].find("\n\n").map_or(self.jobs.len(), |end| start + end + 1);
                let stripped = sections::without(&self.jobs.as_bytes()[start..end]);
                self.jobs.replace_range(start..end, std::str::from_utf8(&stripped).unwrap());
            }
            Edits(from, to) => {
                assert!(self.jobs.contains(from), "{from:?} in {}", self.jobs);
                self.jobs = self.jobs.replacen(from, to, 1);
            }
            StockDeletes(id) => {
                self.happens(StockWrites);
                self.jobs = self
                    .jobs
                    .split_inclusive("\n\n")
                    .filter(|section| !section.starts_with(&format!("vzdump: {id}\n")))
                    .collect();
            }
        }
    }

    fn values(&self) -> Vec<(String, Option<u32>)> {
        sections::jobs(self.jobs.as_bytes())
            .into_iter()
            .map(|job| match job.value {
                sections::Value::Days(days) => (job.id, Some(days)),
                _ => (job.id, None),
            })
            .collect()
    }
}

fn situation_of<'a>(
    mode: Mode,
    node: &'a str,
    members: &'a BTreeSet<String>,
    patched: bool,
    now: u64,
) -> Situation<'a> {
    static EMPTY: std::sync::LazyLock<Memory> = std::sync::LazyLock::new(Memory::default);
    Situation { mode, node, members, patched, now, program: "1", jobs: None, cron: None, memory: &EMPTY }
}

/// Members, events in their order, and the values of jobs a and b after them.
type Row = (&'static str, &'static [&'static str], &'static [Event], &'static [(&'static str, Option<u32>)]);

const ONE: &[&str] = &["pve1"];
const THREE: &[&str] = &["pve1", "pve2", "pve3"];

const TABLE: &[Row] = &[
    ("nothing happens", ONE, &[Keep("pve1")], &[("a", Some(7)), ("b", None)]),
    (
        "an upgrade's window: written by stock code, patched again",
        ONE,
        &[Keep("pve1"), StockWrites, Keep("pve1")],
        &[("a", Some(7)), ("b", None)],
    ),
    (
        "set in an editor and dropped before anybody saw it: nobody knows it",
        ONE,
        &[StockWrites, Keep("pve1")],
        &[("a", None), ("b", None)],
    ),
    (
        "a release that cannot be patched, edits meanwhile, then one that can",
        ONE,
        &[Keep("pve1"), Fails("pve1"), StockWrites, Fails("pve1"), StockWrites, Keep("pve1")],
        &[("a", Some(7)), ("b", None)],
    ),
    (
        "removed through our lines",
        ONE,
        &[Keep("pve1"), Removes("a"), Keep("pve1")],
        &[("a", None), ("b", None)],
    ),
    (
        "removed through our lines, then a window",
        ONE,
        &[Keep("pve1"), Removes("a"), Fails("pve1"), StockWrites, Keep("pve1")],
        &[("a", None), ("b", None)],
    ),
    (
        "dropped in a window, and removed through our lines before anybody gave it back",
        ONE,
        &[Keep("pve1"), StockWrites, Removes("a"), Keep("pve1")],
        &[("a", None), ("b", None)],
    ),
    (
        "set to 0 through our lines, then a window: 0 stays, it overrules vzdump.conf",
        ONE,
        &[Keep("pve1"), Sets("a", 0), Keep("pve1"), StockWrites, Keep("pve1")],
        &[("a", Some(0)), ("b", None)],
    ),
    (
        "dropped, then another job set through our lines before anybody gave it back",
        ONE,
        &[Keep("pve1"), StockWrites, Sets("b", 3), Keep("pve1")],
        &[("a", Some(7)), ("b", Some(3))],
    ),
    (
        "changed through our lines after it was dropped, and dropped again: the new value counts",
        ONE,
        &[Keep("pve1"), StockWrites, Sets("a", 30), StockWrites, Keep("pve1")],
        &[("a", Some(30)), ("b", None)],
    ),
    (
        "an editor's 0 and an editor's other value are values",
        ONE,
        &[Keep("pve1"), Edits("fullbackup 7", "fullbackup 0"), Keep("pve1"), StockWrites, Keep("pve1")],
        &[("a", Some(0)), ("b", None)],
    ),
    (
        "a mixed cluster: the third node writes again and again",
        THREE,
        &[Keep("pve1"), Keep("pve2"), StockWrites, Keep("pve2"), StockWrites, Keep("pve1")],
        &[("a", Some(7)), ("b", None)],
    ),
    (
        "a mixed cluster: removed on a patched node while another is not",
        THREE,
        &[Keep("pve1"), StockWrites, Keep("pve1"), Removes("a"), StockWrites, Keep("pve2"), Keep("pve1")],
        &[("a", None), ("b", None)],
    ),
    (
        "one of two patched nodes reverts: the other's jobs keep the option",
        THREE,
        &[Keep("pve1"), Keep("pve2"), Leave("pve1")],
        &[("a", Some(7)), ("b", None)],
    ),
    (
        "the last one reverts",
        THREE,
        &[Keep("pve1"), Keep("pve2"), Leave("pve1"), Leave("pve2")],
        &[("a", None), ("b", None)],
    ),
    (
        "reverted, edited by stock code, applied again",
        ONE,
        &[Keep("pve1"), Leave("pve1"), StockWrites, Keep("pve1")],
        &[("a", Some(7)), ("b", None)],
    ),
    (
        "reverted without ever having been seen",
        ONE,
        &[Leave("pve1"), Keep("pve1")],
        &[("a", Some(7)), ("b", None)],
    ),
    (
        "deleted, seen, and made anew under its name by stock code",
        ONE,
        &[Keep("pve1"), StockDeletes("a"), Keep("pve1"), Edits("", "vzdump: a\n\tall 1\n\n"), Keep("pve1")],
        &[("a", None), ("b", None)],
    ),
    (
        "deleted by stock code and made anew through our lines, unseen between",
        ONE,
        &[Keep("pve1"), StockDeletes("a"), Edits("", "vzdump: a\n\tall 1\n\n"), Removes("a"), Keep("pve1")],
        &[("a", None), ("b", None)],
    ),
    (
        "copied under another name: each has its own value",
        ONE,
        &[
            Keep("pve1"),
            Edits("", "vzdump: c\n\tfullbackup 7\n\n"),
            Keep("pve1"),
            Removes("c"),
            StockWrites,
            Keep("pve1"),
        ],
        &[("c", None), ("a", Some(7)), ("b", None)],
    ),
    (
        "renamed in an editor",
        ONE,
        &[Keep("pve1"), Edits("vzdump: a", "vzdump: x.y-z_1"), Keep("pve1"), StockWrites, Keep("pve1")],
        &[("x.y-z_1", Some(7)), ("b", None)],
    ),
    (
        "an odd value is left to Proxmox VE's own warning",
        ONE,
        &[Keep("pve1"), Edits("fullbackup 7", "fullbackup 7d"), Keep("pve1")],
        &[("a", None), ("b", None)],
    ),
];

#[test]
fn jobs_in_every_order_of_events() {
    for (what, members, events, expected) in TABLE {
        let mut cluster = Cluster::new(members);
        events.iter().for_each(|event| cluster.happens(*event));
        let expected: Vec<(String, Option<u32>)> =
            expected.iter().map(|(id, days)| ((*id).to_owned(), *days)).collect();
        assert_eq!(cluster.values(), expected, "{what}");
    }
}

#[test]
fn observing_changes_no_settings() {
    let mut cluster = Cluster::new(ONE);
    cluster.run(Mode::Observe, "pve1", true);
    assert_eq!(cluster.memory.jobs["a"], 7);
    assert!(cluster.memory.nodes.is_empty());
    cluster.happens(StockWrites);
    let unchanged = cluster.jobs.clone();
    let situation = Situation {
        jobs: Some(unchanged.as_bytes()),
        memory: &cluster.memory,
        ..situation_of(Mode::Observe, "pve1", &cluster.members, true, 1)
    };
    let seen = plan(&situation);
    assert_eq!(seen.notes, [Note::Dropped { id: "a".into(), days: 7 }]);
    assert_eq!((seen.jobs, seen.cron), (None, None));
    // A job that is not there is forgotten by those that may write, not by those who look.
    let situation = Situation { jobs: Some(b""), ..situation };
    assert_eq!(plan(&situation).memory.jobs.len(), 1);
    assert_eq!(plan(&Situation { mode: Mode::Keep, ..situation }).memory.jobs.len(), 0);
    // No file is no reason to forget.
    assert_eq!(plan(&Situation { mode: Mode::Keep, jobs: None, ..situation }).memory.jobs.len(), 1);
}

const CRON: &str = "# cluster wide vzdump cron schedule\nPATH=\"/usr/sbin\"\n\n\
                    0 2 * * *           root vzdump 100 --fullbackup 7 --quiet 1\n\
                    0 3 * * *           root vzdump --node pve2 --all 1 --fullbackup 14\n\
                    0 4 * * *           root vzdump 101\n";

fn switches(cluster: &Cluster) -> Vec<bool> {
    cluster
        .cron
        .lines()
        .filter(|line| line.contains(" root "))
        .map(|line| line.contains("--fullbackup"))
        .collect()
}

#[test]
fn no_cron_job_runs_where_it_is_refused() {
    const BOTH: &[&str] = &["pve1", "pve2"];
    type Row = (&'static str, &'static [&'static str], &'static [Event], [bool; 3]);
    let table: &[Row] = &[
        ("all patched", BOTH, &[Keep("pve1"), Keep("pve2")], [true, true, false]),
        ("the other never was", BOTH, &[Keep("pve1")], [false, false, false]),
        ("patched one after the other", BOTH, &[Keep("pve2"), Keep("pve1")], [true, true, false]),
        ("one reverts", BOTH, &[Keep("pve1"), Keep("pve2"), Leave("pve1")], [false, true, false]),
        (
            "one reverts and returns",
            BOTH,
            &[Keep("pve1"), Keep("pve2"), Leave("pve1"), Keep("pve2"), Keep("pve1")],
            [true, true, false],
        ),
        (
            "a release that cannot be patched",
            BOTH,
            &[Keep("pve1"), Keep("pve2"), Fails("pve2")],
            [false, false, false],
        ),
        (
            "and on to one that can",
            BOTH,
            &[Keep("pve1"), Keep("pve2"), Fails("pve2"), Keep("pve2")],
            [true, true, false],
        ),
        ("a node alone leaves", ONE, &[Keep("pve1"), Leave("pve1")], [false, true, false]),
        ("a node alone, never seen, leaves", ONE, &[Leave("pve1")], [false, true, false]),
    ];
    for (what, members, events, expected) in table {
        let mut cluster = Cluster::new(members);
        cluster.cron = CRON.into();
        events.iter().for_each(|event| cluster.happens(*event));
        assert_eq!(switches(&cluster), expected, "{what}");
    }
}

#[test]
fn cron_lines_are_otherwise_untouched_and_come_back() {
    let mut cluster = Cluster::new(&["pve1", "pve2"]);
    cluster.cron = CRON.into();
    cluster.happens(Keep("pve2"));
    let notes = cluster.run(Mode::Keep, "pve1", false);
    assert_eq!(notes, [], "pve2 did it");
    assert_eq!(cluster.cron, CRON.replace(" --fullbackup 7", ""));
    // Proxmox' own code writes the options in another order, and enabled or not.
    cluster.cron = cluster
        .cron
        .replace("vzdump 100 --quiet 1", "#vzdump --quiet '1' 100")
        .replace("0 3 * * *  ", "30 3 * * *  ");
    cluster.happens(Keep("pve1"));
    assert!(cluster.cron.contains("root #vzdump --fullbackup 7 --quiet '1' 100\n"), "{}", cluster.cron);
    assert!(cluster.memory.cron.is_empty());

    // A line that was changed is not guessed at.
    cluster.happens(Leave("pve2"));
    cluster.cron = cluster.cron.replace("--all 1", "--all 1 --storage nas");
    let notes = cluster.run(Mode::Keep, "pve2", true);
    assert!(
        matches!(&notes[..], [Note::CronRestored { days: 7, .. }, Note::CronGone { days: 14, .. }]),
        "{notes:?}"
    );

    cluster.cron = "0 2 * * * root vzdump 1 --fullbackup 7 --script 'x\n".into();
    let before = cluster.cron.clone();
    let notes = cluster.run(Mode::Leave, "pve1", false);
    assert!(matches!(&notes[..], [.., Note::CronOdd { .. }]), "{notes:?}");
    assert_eq!(cluster.cron, before);
}

#[test]
fn nodes_that_left_the_cluster_do_not_count() {
    let mut cluster = Cluster::new(&["pve1", "pve2"]);
    cluster.happens(Keep("pve2"));
    cluster.happens(Keep("pve1"));
    assert_eq!(cluster.memory.nodes["pve1"], Node { patched: true, since: 1020, program: "1".into() });
    cluster.members.remove("pve2");
    let notes = cluster.run(Mode::Leave, "pve1", false);
    assert_eq!(notes, [Note::Stripped { id: "a".into(), days: 7 }]);
    assert_eq!(cluster.memory.nodes.len(), 1);
    assert!(!cluster.memory.nodes["pve1"].patched);
    assert_eq!(cluster.memory.jobs["a"], 7);
}
