//! The table of what archives are worth.

use indicatif::DecimalBytes;

use super::look::{Look, OURS, Of, XDELTA3};
use super::{Finding, Report};
use crate::backup::chain::Directory;
use crate::cli::say::count;
use crate::text::{harmless, shown};

/// The first line.
pub(super) fn head() -> String {
    line(["", "guest", "date", "made by", "restores to", "sure by"])
}

/// The line of one backup, and below it why it cannot be restored, or what else there is to know.
pub(super) fn row(finding: &Finding) -> String {
    let word = match finding.result {
        "ok" => "OK",
        "failed" => "FAIL",
        _ => "GONE",
    };
    let made_by = match &finding.look {
        Some(Look { of: Of::Differential { made_by: OURS, .. }, .. }) => "this product",
        Some(Look { of: Of::Differential { .. }, .. }) => "pve-patches",
        Some(Look { of: Of::Full, full_read: "map", .. }) => "full, with map",
        Some(Look { of: Of::Full, .. }) => "full",
        None => "-",
    };
    let content = match (&finding.content, finding.bytes) {
        (Some(content), Some(bytes)) => format!("{content}, {}", DecimalBytes(bytes)),
        _ => "-".to_owned(),
    };
    let sure = match (&finding.look, finding.result) {
        (Some(look), "ok") => sure(look),
        _ => "-".to_owned(),
    };
    let text = line([word, &finding.guest, &finding.date, made_by, &content, &sure]);
    match &finding.error {
        Some(error) => format!("{text}        ! {}: {}\n", finding.file, harmless(error)),
        None => text,
    }
}

/// What proves that a backup restores to what was once there.
fn sure(look: &Look) -> String {
    match &look.of {
        Of::Full if look.compression == "raw" => "its structure alone".to_owned(),
        Of::Full => format!("checksums of {}, structure", look.compression),
        Of::Differential { made_by: OURS, .. } => "hash of the whole, its full's identity".to_owned(),
        Of::Differential { windows_without_checksum: 0, windows, .. } => {
            format!("{} of windows, structure*", count(*windows as usize, "checksum"))
        }
        Of::Differential { windows_without_checksum, windows, .. } => {
            format!("{} of {windows} checksums, structure*", windows - windows_without_checksum)
        }
    }
}

fn line(cells: [&str; 6]) -> String {
    let [word, guest, date, made_by, content, sure] = cells;
    let text = format!("{word:<6} {guest:<14} {date:<19}  {made_by:<14} {content:<26} {sure}");
    format!("{}\n", text.trim_end())
}

/// What is told below the table.
pub(super) fn end(report: &Report, scanned: &Directory) -> String {
    let mut text = String::new();
    for unusable in &scanned.unusable {
        text += &format!("FAIL   {}: {}\n", shown(&unusable.name), unusable.reason);
    }
    text.push('\n');
    text += &match report.failed + report.unusable {
        0 => format!("{} can be restored as they are. Nothing was changed.\n", count(report.ok, "backup")),
        bad => format!(
            "{} can be restored as they are, {bad} NOT. Nothing was changed.\n",
            count(report.ok, "backup")
        ),
    };
    if report.originals > 0 {
        text += &format!(
            "* {XDELTA3} wrote no mark of the end and nothing of the full but its name. Each window was compared with its checksum; \
             that nothing is missing at the end, the archive's structure tells (all of each disk; the end of the tar).\n\
             To have more than that, make a full backup of one: pve-diff-backup consolidate FILE (it gets a map, and serves as \
             a base then). Else keep them as they are: they are listed, restored, pruned and verified.\n"
        );
    }
    text
}
