//! Writes the seeds where cargo-fuzz looks for them: `cargo run --bin seed`, in the fuzz folder.

use std::{fs, io};

use pve_diff_backup_fuzz::seeds::seeds;
use pve_diff_backup_fuzz::{TARGETS, corpus};

fn main() -> io::Result<()> {
    for (name, _) in TARGETS {
        let dir = format!("corpus/{name}");
        fs::create_dir_all(&dir)?;
        for (n, seed) in seeds(name).iter().chain(&corpus::seeds(name)).enumerate() {
            fs::write(format!("{dir}/seed-{n}"), seed)?;
        }
    }
    Ok(())
}
