//! The patch sets and the payload inside the program, so that one file is all a host needs.

macro_rules! embed {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_bytes!(concat!("../../patches/", $path)).as_slice())),*]
    };
}

/// Every file below `patches/`, by its path there. A test compares this list with the directory.
pub static FILES: &[(&str, &[u8])] = embed![
    "payload/PVE/VZDump/Differential.pm",
    "payload/PVE/VZDump/Differential/API.pm",
    "payload/PVE/VZDump/Differential/Access.pm",
    "payload/PVE/VZDump/Differential/Audit.pm",
    "payload/PVE/VZDump/Differential/Chain.pm",
    "payload/PVE/VZDump/Differential/Changed.pm",
    "payload/PVE/VZDump/Differential/Files.pm",
    "payload/PVE/VZDump/Differential/Helper.pm",
    "payload/PVE/VZDump/Differential/Jobs.pm",
    "payload/PVE/VZDump/Differential/Restore.pm",
    "payload/PVE/VZDump/Differential/Storage.pm",
    "payload/PVE/VZDump/Differential/Unfinished.pm",
    "payload/js/pve-diff-backup.js",
    "proxmox-ve/patchset.yaml",
    "verified.yaml",
];

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn the_list_is_the_directory() {
        let patches = Path::new(env!("CARGO_MANIFEST_DIR")).join("patches");
        let mut there: Vec<String> = walkdir::WalkDir::new(&patches)
            .into_iter()
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.file_type().is_file())
            .map(|entry| entry.path().strip_prefix(&patches).unwrap().to_str().unwrap().to_owned())
            .collect();
        there.sort();
        let listed: Vec<&str> = super::FILES.iter().map(|(path, _)| *path).collect();
        assert_eq!(listed, there);
    }

    #[test]
    fn all_sets_are_sound_and_their_payload_is_used() {
        let sets = crate::patching::patchset::embedded().unwrap();
        assert!(!sets.is_empty());
        for (path, _) in super::FILES {
            let Some(source) = path.strip_prefix("payload/") else { continue };
            assert!(
                sets.iter().any(|set| set.payload.iter().any(|file| file.source == source)),
                "{path} is unused"
            );
        }
    }
}
