//! The container of the demo: files of many kinds in the folder of its root file system.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use fs_err as fs;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, mknodat, utimensat};

use super::compare::{self, Snapshot, Times};
use super::content::Random;
use super::stage::Stage;
use super::{Guest, table, time_of};

const ID: u32 = 102;
/// The number it is restored as, so that the original stays for comparison.
const RESTORED: u32 = 202;
const LOGS: [&str; 4] = ["syslog", "mail.log", "auth.log", "web.log"];
const PHOTOS: u64 = 30;

/// The container.
pub struct Container {
    root: PathBuf,
    random: Random,
}

impl Container {
    /// Makes the container on the demo's host.
    pub fn create(stage: &Stage) -> anyhow::Result<Self> {
        let root = root(stage, ID);
        let mut container = Self { root, random: Random(ID.into()) };
        container.fill().with_context(|| format!("cannot write {}", container.root.display()))?;
        fs::write(config(stage, ID), "arch: amd64\nhostname: example\nmemory: 512\n")?;
        Ok(container)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn fill(&mut self) -> io::Result<()> {
        for folder in ["home/anna", "srv/photos/new", "usr/bin", "usr/share/doc", "var/lib/db", "var/log"] {
            fs::create_dir_all(self.at(folder))?;
        }
        for log in LOGS {
            fs::write(self.at(&format!("var/log/{log}")), self.random.text(4 << 20))?;
        }
        for number in 0..PHOTOS {
            fs::write(self.at(&format!("srv/photos/new/{number}.jpg")), self.random.noise(400 << 10))?;
        }
        for number in 0..400 {
            let length = 1000 + self.random.below(30_000) as usize;
            fs::write(self.at(&format!("usr/share/doc/{number}.txt")), self.random.text(length))?;
        }
        // what a backup must keep apart from content: holes, names, kinds, owners and modes
        let database = File::create(self.at("var/lib/db/tables"))?;
        database.set_len(8 << 20)?;
        for place in [0, 3 << 20, 7 << 20] {
            database.write_all_at(&self.random.text(40_000), place)?;
        }
        fs::write(self.at("home/anna/notes $(for) Zoë's plans.txt"), self.random.text(300))?;
        fs::write(self.at("home/anna/.key"), self.random.noise(64))?;
        fs::write(self.at("usr/bin/tool"), self.random.noise(20_000))?;
        fs::hard_link(self.at("usr/bin/tool"), self.at("usr/bin/tool-1.0"))?;
        symlink("../../var/log", self.at("home/anna/logs"))?;
        symlink("/nowhere", self.at("srv/dangling"))?;
        mknodat(CWD, self.at("var/lib/db/pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0)?;
        // only root may give files away; restoring keeps whatever owner there is
        if rustix::process::geteuid().is_root() {
            chown(self.at("home/anna"), Some(1000), Some(1000))?;
            chown(self.at("home/anna/.key"), Some(1000), Some(1000))?;
            chown(self.at("usr/bin/tool"), Some(0), Some(33))?;
        }
        let modes =
            [("home/anna", 0o750), ("home/anna/.key", 0o600), ("usr/bin/tool", 0o4755), ("srv", 0o2775)];
        for (name, mode) in modes {
            fs::set_permissions(self.at(name), Permissions::from_mode(mode))?;
        }
        Ok(())
    }

    /// Changes the files as a day would do it. The first day is number 1.
    fn change(&mut self, day: u64) -> io::Result<()> {
        let syslog = self.at("var/log/syslog");
        File::options().append(true).open(syslog)?.write_all(&self.random.text(150 << 10))?;
        // a line in the middle: all behind it moves
        let mail = self.at("var/log/mail.log");
        let mut lines = fs::read(&mail)?;
        let middle = lines.len() / 2;
        lines.splice(middle..middle, self.random.text(777));
        fs::write(&mail, lines)?;
        // a record is changed where it is
        let place = self.random.below(30_000);
        let record = self.random.noise(100);
        File::options().write(true).open(self.at("var/lib/db/tables"))?.write_all_at(&record, place)?;
        // pictures come, go and are sorted into folders
        fs::write(self.at(&format!("srv/photos/new/day-{day}.jpg")), self.random.noise(200 << 10))?;
        fs::remove_file(self.at(&format!("srv/photos/new/{day}.jpg")))?;
        let folder = self.at(&format!("srv/photos/album-{day}"));
        fs::create_dir(&folder)?;
        for number in [10 * day - 1, 10 * day - 2] {
            let name = format!("{number}.jpg");
            fs::rename(self.at("srv/photos/new").join(&name), folder.join(&name))?;
        }
        fs::set_permissions(self.at("usr/share/doc/7.txt"), Permissions::from_mode(0o600 + day as u32 % 8))
    }

    /// Everything changed since the last call bears `time`: an archive of tar has whole seconds.
    fn settle(&self, time: u64) -> anyhow::Result<()> {
        let time = Timespec { tv_sec: time.try_into()?, tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        for entry in walkdir::WalkDir::new(&self.root).contents_first(true) {
            let entry = entry?;
            if entry.metadata()?.mtime_nsec() != 0 {
                utimensat(CWD, entry.path(), &times, AtFlags::SYMLINK_NOFOLLOW)?;
            }
        }
        Ok(())
    }
}

impl Guest for Container {
    fn title(&self) -> &str {
        "container 102"
    }

    fn id(&self) -> u32 {
        ID
    }

    fn size(&self) -> anyhow::Result<u64> {
        Ok(Snapshot::take(&self.root, &[], Times::Files)?.bytes())
    }

    fn live(&mut self, night: u64) -> anyhow::Result<()> {
        if night > 0 {
            self.change(night).with_context(|| format!("cannot write to {}", self.root.display()))?;
        }
        self.settle(time_of(night) - 3600)
    }

    fn restore(&self, stage: &Stage, volume: &str) -> anyhow::Result<String> {
        stage.host("usr/sbin/pct", &["restore", &RESTORED.to_string(), volume])?;
        let original = Snapshot::take(&self.root, &[], Times::All)?;
        // vzdump puts the configuration into the archive as a file in etc/vzdump, which the container has not
        let restored = Snapshot::take(&root(stage, RESTORED), &["etc"], Times::All)?;
        compare::require_none("the restored container is not what it was", &original.differences(&restored))?;
        let config = |id| fs::read(config(stage, id));
        ensure!(config(ID)? == config(RESTORED)?, "the container's configuration is not what it was");
        Ok(format!(
            "container {ID}: {} files ({:.2} MiB) are equal byte for byte, with owners, modes, times and links",
            original.files(),
            table::mib(original.bytes())
        ))
    }
}

fn root(stage: &Stage, id: u32) -> PathBuf {
    stage.path(format!("host/var/lib/lxc/{id}/rootfs"))
}

fn config(stage: &Stage, id: u32) -> PathBuf {
    stage.path(Path::new("host/etc/pve/lxc").join(format!("{id}.conf")))
}
