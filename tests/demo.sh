#!/bin/bash
# The product's main job on an embedded example: builds the programs and runs `pve-diff-backup demo`.
set -euo pipefail
cd "$(dirname "$0")/.."
tests/setup.sh
cargo build --locked --bins
exec target/debug/pve-diff-backup demo "$@"
