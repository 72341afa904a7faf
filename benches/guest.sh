#!/bin/bash
# guest.sh DIR: makes a real guest below DIR (root, loop mounts, mmdebstrap, the network, 25 GB of disk, 5 minutes): a Debian 12
# server with PostgreSQL as it was installed, and the same after a heavy day: a month's security upgrades, a new
# kernel, and a data base under load. Its VMA and tar streams have the names that data.sh gives its own, so that
# "QUICK=1 RESULTS=benches/guest.md benches/run.sh DIR" measures with them. What is upgraded depends on the day.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
xdelta=$here/target/release/pve-xdelta3
mkdir -p "$1"
cd "$1"
[ ! -e day.vma ] || exit 0

packages=linux-image-amd64,openssh-server,rsyslog,postgresql,nginx,php-fpm,samba,bind9,git,build-essential,python3
packages+=,openjdk-17-jre-headless,imagemagick,ffmpeg,vim,man-db,cron,logrotate

enter() {
	mount -o loop "$1" mnt
	mkdir -p mnt/proc mnt/dev
	mount -t proc proc mnt/proc
	mount --bind /dev mnt/dev
	mount --make-private mnt/dev
	mount -t tmpfs -o mode=1777 shm mnt/dev/shm
	printf '#!/bin/sh\nexit 101\n' >mnt/usr/sbin/policy-rc.d
	chmod +x mnt/usr/sbin/policy-rc.d
	cp /etc/resolv.conf mnt/etc/resolv.conf
}
in_guest() { chroot mnt env DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@" >&2; }
database() {
	in_guest pg_ctlcluster 15 main start
	in_guest su postgres -c "$1"
	in_guest pg_ctlcluster 15 main stop
}
leave() {
	umount mnt/proc mnt/dev/shm mnt/dev
	tar --one-file-system -C mnt -cf "$1" .
	sync
	umount mnt
}
trap 'umount mnt/proc mnt/dev/shm mnt/dev mnt 2>/dev/null || true' EXIT

mkdir -p mnt
truncate -s 4G full.raw
truncate -s 1G data.raw
mkfs.ext4 -qF full.raw
mount -o loop full.raw mnt
# This machine's own mirrors: first the release alone, later with updates and security.
mapfile -t sources < <("$here/tests/packages/sources.sh" bookworm)
[ ${#sources[@]} -gt 1 ] || { echo "apt knows no mirror of Debian with updates here" >&2 && exit 1; }
mmdebstrap --quiet --variant=apt --include=$packages bookworm - "${sources[0]}" |
	tar -C mnt -xf -
umount mnt
enter full.raw
database "createdb b && pgbench -q -i -s 20 b && pgbench -t 2000 -c 4 b"
leave full.tar

cp --sparse=always full.raw day.raw
enter day.raw
printf '%s\n' "${sources[@]:1}" >>mnt/etc/apt/sources.list
in_guest apt-get -qq update
in_guest apt-get -qqy dist-upgrade
database "pgbench -t 10000 -c 4 b"
leave day.tar

for name in full day; do
	"$xdelta" vma create $name.vma drive-scsi0=$name.raw drive-scsi1=data.raw --mixed
done
cp full.vma rerun.vma
