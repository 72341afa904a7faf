#!/bin/bash
# Checks the programs with the oldest Rust that Cargo.toml promises (`rust-version`). Needs rustup, which gets it.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
rustup toolchain install "$version" --profile minimal --no-self-update
CARGO_TARGET_DIR=target/minimum-rust rustup run "$version" cargo check --locked --bins
