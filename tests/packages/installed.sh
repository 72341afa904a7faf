#!/bin/bash
# Runs each test of debian/tests as autopkgtest would, with our packages installed and no others of ours or of Proxmox VE.
# Run in the chroot by tests/packages.sh.
set -uo pipefail
passed=0 failed=0
dpkg -i /repository/pve-xdelta3_*_amd64.deb /repository/pve-diff-backup_0*_amd64.deb || exit 1
for name in $(sed -n 's/^Tests: //p' /tests/of-packages/control); do
	# Once is enough: it takes long, and is what `cargo test` runs too.
	[ "$name $(. /etc/os-release && echo "$VERSION_CODENAME")" != "demo trixie" ] || continue
	echo "== $name"
	if (cd /tmp && "/tests/of-packages/$name"); then
		passed=$((passed + 1))
	else
		echo "FAILED: debian/tests/$name"
		failed=$((failed + 1))
	fi
done
echo "$passed passed, $failed failed"
