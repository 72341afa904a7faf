#!/bin/bash
# data.sh DIR: makes what run.sh measures on, below DIR (root, loop mounts, 12 GB of disk, 2 minutes):
# an ext4 disk with much of this machine's /usr, the same a day later, and their VMA and tar streams.
# The day: changed libraries and documents, random writes into big files, a log, a new file.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
xdelta=$here/target/release/pve-xdelta3
mkdir -p "$1"
cd "$1"
[ ! -e day.tar ] || exit 0

trap 'umount mnt 2>/dev/null || true' EXIT
mkdir -p mnt
truncate -s 4G full.raw
truncate -s 1G data.raw
mkfs.ext4 -qF full.raw
mount -o loop full.raw mnt
tar -C /usr -cf - lib/x86_64-linux-gnu bin share/doc share/locale share/perl share/man | tar -C mnt -xf -
tar -C mnt -cf full.tar .
sync
umount mnt

sync full.raw
cp --sparse=always full.raw day.raw
mount -o loop day.raw mnt
python3 - mnt <<'PYTHON'
import os, random, sys
random.seed(4)
os.chdir(sys.argv[1])
files = sorted(os.path.join(d, f) for d, _, fs in os.walk(".") for f in fs)
files = [f for f in files if os.path.isfile(f) and not os.path.islink(f)]
libraries = [f for f in files if ".so" in f and os.path.getsize(f) > 100_000]
for f in random.sample(libraries, min(80, len(libraries))):  # upgraded: written anew, little changed
    with open(f, "rb") as old, open(f + ".new", "wb") as new:
        data = bytearray(old.read())
        data[5000:5007] = b"patched"
        new.write(data)
    os.rename(f + ".new", f)
documents = [f for f in files if "/doc/" in f]
for f in random.sample(documents, min(2000, len(documents))):
    with open(f, "ab") as out:
        out.write(b"upgraded\n")
for f in sorted(files, key=os.path.getsize)[-10:]:  # databases: pages changed in place
    with open(f, "r+b") as out:
        for _ in range(1500):
            out.seek(random.randrange(os.path.getsize(f) // 8192) * 8192 + random.randrange(8000))
            out.write(random.randbytes(random.choice([8, 40, 120])))
with open("log", "w") as out:
    out.writelines(f"{n} a line of a log\n" for n in range(1_500_000))
with open("new", "wb") as out:
    out.write(random.randbytes(20 << 20))
PYTHON
tar -C mnt -cf day.tar.part .
sync
umount mnt

for name in full day; do
	rm -f $name.vma
	"$xdelta" vma create $name.vma drive-scsi0=$name.raw drive-scsi1=data.raw --mixed
done
rm -f rerun.vma
"$xdelta" vma create rerun.vma drive-scsi0=full.raw drive-scsi1=data.raw --mixed
mv day.tar.part day.tar
