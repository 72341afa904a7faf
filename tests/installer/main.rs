//! `pve-diff-backup` on host trees built here: the real program, real files, real perl, patch and strace.

mod chains;
mod coexist;
mod completions;
mod crash;
mod diffs;
mod errors;
mod foreign;
mod health;
mod help;
mod lifecycle;
mod options;
mod refusals;
mod reinstall;
mod rights;
mod support;
mod upcoming;
mod vanished;
mod versions;
