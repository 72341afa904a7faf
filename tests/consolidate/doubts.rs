//! What `consolidate` does where something is in doubt: it keeps more, and says so.

use std::fs;
use std::os::unix::fs::symlink;

use super::{COMPRESSIONS, Dump};

/// The full goes only if nothing failed that needs it.
#[test]
fn a_full_stays_where_one_of_its_differentials_failed() {
    let dump = Dump::new(true, COMPRESSIONS[0]);
    let days = dump.days.each_ref().map(String::as_str);
    // The last one is gone by then, as if somebody else had removed it.
    let ran = dump.ours(&["consolidate", "--remove-full", days[0], days[1], days[0]]);
    assert!(ran.code == Some(1) && ran.out.contains("1 NOT"), "{}{}", ran.out, ran.err);
    assert!(dump.names().contains(&dump.full), "{}", ran.out);
    assert!(!ran.out.contains("GONE"), "{}", ran.out);
}

/// Whatever is named as a differential of the full is one, though it cannot be used as it is.
#[test]
fn a_full_stays_for_what_is_named_as_its_differential() {
    type Make = fn(&Dump, &str);
    let odd: [(&str, Make); 4] = [
        (".vcdiff.xz", |dump, name| dump.write(name, "packed")),
        (".vcdiff.zst", |dump, name| symlink("elsewhere", dump.path(name)).unwrap()),
        (".vcdiff.zst", |dump, name| fs::create_dir(dump.path(name)).unwrap()),
        (".vcdiff.zst.part", |dump, name| dump.write(name, "being copied")),
    ];
    for (end, make) in odd {
        // The name may be that of the full in another compression.
        for form in ["vma.zst", "vma.lzo", "vma"] {
            let dump = Dump::new(true, COMPRESSIONS[0]);
            let name = dump.full.replace("vma.zst", form) + "--differential-2026_11_23-01_00_02" + end;
            make(&dump, &name);
            let ran = dump.ours(&["consolidate", "--remove-full", &dump.days[0], &dump.days[1]]);
            assert!(dump.names().contains(&dump.full), "{name}: {}", ran.out);
            assert_eq!(ran.code, Some(1), "{name}: {}", ran.out);
            let told = format!("STAYS {} (", dump.full);
            assert!(ran.out.contains(&told) && ran.out.contains(&name), "{name}: {}", ran.out);
        }
    }
}

/// Proxmox VE asks only whether there is something of that name.
#[test]
fn whatever_has_the_name_protects() {
    for make in [(|path| symlink("nowhere", path)) as fn(&std::path::Path) -> _, |path| fs::create_dir(path)]
    {
        let dump = Dump::new(true, COMPRESSIONS[0]);
        make(&dump.path(format!("{}.protected", dump.full))).unwrap();
        let ran = dump.ours(&["consolidate", "--remove-full", "--all-of", &dump.guest, "."]);
        assert!(dump.names().contains(&dump.full), "{}", ran.out);
        assert!(ran.code == Some(0) && ran.out.contains("but it is protected"), "{}", ran.out);

        // What cannot be copied with the differential is not lost.
        for end in ["protected", "notes"] {
            let dump = Dump::new(true, COMPRESSIONS[0]);
            let name = format!("{}.{end}", dump.days[0]);
            make(&dump.path(&name)).unwrap();
            let before = dump.names();
            let ran = dump.ours(&["consolidate", &dump.days[0]]);
            assert!(ran.code == Some(1) && ran.out.contains(&name), "{}", ran.out);
            assert!(ran.out.contains("no regular file"), "{}", ran.out);
            assert_eq!(dump.names(), before);
        }
    }
}
