#!/bin/bash
# Prints where this machine has its Debian from, as lines of sources.list: for SUITE in the place of its own release, with
# updates and security where it has these. Usage: tests/packages/sources.sh SUITE
set -uo pipefail
own=$(. /etc/os-release && echo "$VERSION_CODENAME")
apt-get indextargets --format '$(SITE) $(RELEASE) $(COMPONENT) $(CREATED_BY)' |
	awk -v own="$own" -v suite="$1" '
		$3 == "main" && $4 == "Packages" && $2 ~ "^" own "(-updates|-security)?$" {
			sub("^" own, suite, $2)
			if (!seen[$1, $2]++) print length($2), "deb", $1, $2, $3
		}' | sort -n -s | cut -d' ' -f2-
