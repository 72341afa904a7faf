# What the tests in the chroot share: apt with nothing but our repository, steps, and how a host must stand. Sourced.
set -uo pipefail

cat >/etc/apt/apt.conf.d/99test <<'CONF'
Dir::Etc::SourceList "/repository/sources.list";
Dir::Etc::SourceParts "-";
APT::Get::Assume-Yes "true";
APT::Get::Allow-Downgrades "true";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Dpkg::Use-Pty "false";
CONF
echo "deb [trusted=yes] file:/repository ./" >/repository/sources.list
mkdir -p /run/test

pve=(pve-manager libpve-storage-perl libpve-guest-common-perl libpve-common-perl pve-container qemu-server)
own=(/usr/share/perl5/PVE/VZDump/Differential.pm /usr/share/perl5/PVE/VZDump/Differential/Chain.pm
	/usr/share/pve-manager/js/pve-diff-backup.js)
install="apt-get install"
all_old=(pve-manager=8.4.20 libpve-storage-perl=8.3.8 libpve-guest-common-perl=5.2.2 libpve-common-perl=8.3.8
	pve-container=5.3.5 qemu-server=8.4.10)
# By name, for another version: apt before Debian 12's takes the first of `pve-manager pve-manager=9.2.2`.
others=("${all_old[@]:1}")
others=("${others[@]/=*/}")
version=$(dpkg-deb -f /repository/next-pve-diff-backup_*.deb Version)
version=${version%+next}
ours_now=(pve-diff-backup="$version" pve-xdelta3=1:"$version")
ours_next=(pve-diff-backup="$version+next" pve-xdelta3=1:"$version+next")
passed=0 failed=0 name=

check() { # WHAT COMMAND...
	if "${@:2}" >/run/test/check 2>&1; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		echo "FAILED: $name: $1"
		sed 's/^/    /' /run/test/check /run/test/output
		pve-diff-backup status 2>&1 | sed 's/^/    /'
	fi
}
before_step() { :; }
step() { # NAME COMMAND...: a command that must succeed
	name=$1
	echo "== $name: ${*:2}"
	before_step
	"${@:2}" >/run/test/output 2>&1 </dev/null
	local code=$?
	check "exit code $code" test $code = 0
}

edited() { dpkg --verify "${pve[@]}" | awk '{ print $NF }' | sort; }
patchable() { sed -n 's/^interest-noawait //p' /var/lib/dpkg/info/pve-diff-backup.triggers | sort; }
status_is() { pve-diff-backup status; test $? = "$1"; }
recorded() { # the files of Proxmox that our record says are patched, if they hold what it says
	perl -MJSON::PP -MDigest::SHA -0777 -e '
		for my $file (@{ JSON::PP->new->decode(<>)->{files} }) {
			my $now = Digest::SHA->new(256)->addfile("/$file->{path}", "b")->hexdigest;
			print "/$file->{path}\n" if $file->{before} && $file->{after} eq $now;
		}' /var/lib/pve-diff-backup/applied.json | sort
}
exactly_the_recorded_files_are_edited() { diff <(edited) <(recorded) && test -n "$(edited)"; }
triggers_cover_the_edited() { test -z "$(comm -23 <(edited) <(patchable))"; }
nothing_is_edited() { diff <(edited) /dev/null; }
own_files() { ls "${own[@]}"; }
no_own_files() { ! ls -d "${own[@]}" /usr/share/perl5/PVE/VZDump/Differential 2>/dev/null; }
no_marker() { ! grep -rE 'pve-diff-backup:[0-9]+ ' /usr/share/perl5/PVE /usr/share/pve-manager; }
dpkg_is_content() { test -z "$(dpkg --audit)" && dpkg --configure -a; }

patched() {
	check "status" status_is 0
	check "exactly the files in our record are patched" exactly_the_recorded_files_are_edited
	check "dpkg triggers us for each of them" triggers_cover_the_edited
	check "our files are there" own_files
	check "nothing is owed" test ! -e /var/lib/pve-diff-backup/pending
	well
}
pristine() {
	check "all files are the packages' own" nothing_is_edited
	check "none of our files is there" no_own_files
	check "no line of ours is there" no_marker
	well
}
well() { check "dpkg is content" dpkg_is_content; }

finish() {
	echo "$passed passed, $failed failed"
	[ $failed = 0 ]
}
