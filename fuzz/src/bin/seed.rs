//! Writes the seeds where cargo-fuzz looks for them: `cargo run --bin seed`, in the fuzz folder.

use std::{fs, io};

use pve_diff_backup_fuzz::TARGETS;
use pve_diff_backup_fuzz::seeds::seeds;

fn main() -> io::Result<()> {
    for (name, _) in TARGETS {
        let dir = format!("corpus/{name}");
        fs::create_dir_all(&dir)?;
        for (n, seed) in seeds(name).iter().enumerate() {
            fs::write(format!("{dir}/seed-{n}"), seed)?;
        }
    }
    Ok(())
}
