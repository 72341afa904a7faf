"""Measures reading out of backups without restoring them. See look.sh."""

import os
import random
import re
import shutil
import socket
import struct
import subprocess
import sys
import time

PROGRAM, DIR, RESULTS = sys.argv[1:4]
GIB = int(sys.argv[4]) if len(sys.argv) > 4 else 64
DATA = int(os.environ.get("DATA", "2048"))
os.makedirs(DIR, exist_ok=True)
os.chdir(DIR)
os.environ["XDG_CACHE_HOME"] = os.path.join(DIR, "cache")
rng = random.Random(21)


def seconds(command, **kw):
    begin = time.monotonic()
    subprocess.run(command, check=True, shell=isinstance(command, str), **kw)
    return time.monotonic() - begin


def text(length):
    """Data of a guest: a third random, a third like text, a third repeated."""
    words = [rng.randbytes(rng.randrange(3, 12)).hex().encode() for _ in range(4000)]
    out = bytearray()
    while len(out) < length:
        out += rng.randbytes(64 << 10)
        out += b" ".join(rng.choices(words, k=4000))[: 64 << 10]
        out += rng.randbytes(4 << 10) * 16
    return bytes(out[:length])


def make():
    if os.path.exists("done"):
        return
    pool = text(256 << 20)
    with open("disk.raw", "wb") as disk:
        disk.truncate(GIB << 30)
        # In stretches of a MiB all over the disk.
        for n in range(DATA):
            disk.seek((n * (GIB << 10) // DATA) << 20)
            at = rng.randrange(len(pool) - (1 << 20))
            disk.write(pool[at : at + (1 << 20)])
    subprocess.run([PROGRAM, "vma", "create", "first.vma", "drive-scsi0=disk.raw"], check=True)
    with open("disk.raw", "r+b") as disk:
        for _ in range(DATA * 4):
            n = rng.randrange(DATA)
            disk.seek(((n * (GIB << 10) // DATA) << 20) + 4096 * rng.randrange(256))
            disk.write(rng.randbytes(4096))
    subprocess.run([PROGRAM, "vma", "create", "second.vma", "drive-scsi0=disk.raw"], check=True)
    os.remove("disk.raw")
    os.makedirs("tree", exist_ok=True)
    for n in range(40):
        os.makedirs(f"tree/{n}", exist_ok=True)
        for k in range(1000):
            size = min(int(rng.paretovariate(0.9) * 4000), 4 << 20)
            at = rng.randrange(len(pool) - size)
            with open(f"tree/{n}/{k}", "wb") as f:
                f.write(pool[at : at + size])
    left = (2 << 30) - int(subprocess.check_output(["du", "-sb", "tree"]).split()[0])
    for n in range(max(0, left >> 25)):
        with open(f"tree/large-{n}", "wb") as f:
            at = rng.randrange(len(pool) - (32 << 20))
            f.write(pool[at : at + (32 << 20)])
    subprocess.run(["tar", "-cf", "c.tar", "-C", "tree", "."], check=True)
    shutil.rmtree("tree")
    subprocess.run(f"{PROGRAM} full <first.vma >vm.vma.zst", shell=True, check=True)
    subprocess.run(f"{PROGRAM} diff --base vm.vma.zst <second.vma >vm.vma.zst--differential-2026_11_05-02_00_00.vcdiff.zst", shell=True, check=True)
    subprocess.run(f"{PROGRAM} full <c.tar >ct.tar.zst", shell=True, check=True)
    subprocess.run(["zstd", "-q", "c.tar", "-o", "stock.tar.zst"], check=True)
    open("done", "w").close()


class Server:
    """Our NBD server, and the simplest client."""

    def __init__(self, backup):
        self.begin = time.monotonic()
        self.process = subprocess.Popen([PROGRAM, "vma", "nbd", backup, "--socket", "socket"], stdout=subprocess.PIPE)
        self.process.stdout.readline()

    def connect(self):
        self.line = socket.socket(socket.AF_UNIX)
        self.line.connect("socket")
        self.take(18)
        self.line.sendall(struct.pack(">I8sII", 3, b"IHAVEOPT", 1, 11) + b"drive-scsi0")
        self.size = struct.unpack(">QH", self.take(10))[0]

    def take(self, length):
        out = b""
        while len(out) < length:
            part = self.line.recv(length - len(out))
            assert part, "the server is gone"
            out += part
        return out

    def ask(self, at, length):
        self.line.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 0, 1, at, length))

    def hear(self, length):
        assert struct.unpack(">IIQ", self.take(16))[1] == 0
        return self.take(length)

    def read(self, at, length):
        self.ask(at, length)
        return self.hear(length)

    def reads(self, places, in_flight):
        """Reads blocks, so many at a time; how many in a second."""
        begin = time.monotonic()
        for at in places[:in_flight]:
            self.ask(at, 4096)
        for n in range(len(places)):
            self.hear(4096)
            if n + in_flight < len(places):
                self.ask(places[n + in_flight], 4096)
        return len(places) / (time.monotonic() - begin)

    def cpu(self):
        """Seconds of processor time that the server has taken, which hardly depends on what else the machine does."""
        fields = open(f"/proc/{self.process.pid}/stat").read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self):
        status = open(f"/proc/{self.process.pid}/status").read()
        return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024

    def end(self):
        self.process.terminate()
        self.process.wait()


class Row(dict):
    """A row of figures, each told as soon as it is known."""

    def __setitem__(self, name, value):
        print(f"{name}: {value:.2f}", flush=True)
        super().__setitem__(name, value)


def disk(backup, restore):
    row = Row()
    server = Server(backup)
    server.connect()
    server.read(0, 512)
    row["first byte"] = time.monotonic() - server.begin
    row["first byte, CPU"] = server.cpu()
    places = [((n * (GIB << 10) // DATA) << 20) + 4096 * rng.randrange(256) for n in rng.choices(range(DATA), k=2000)]
    row["random reads/s, first time"] = server.reads(places[:500], 1)
    before = server.cpu()
    row["random reads/s, again"] = server.reads(places, 1)
    row["random reads, CPU ms each"] = (server.cpu() - before) * 1000 / len(places)
    row["random reads/s, 4 at a time"] = server.reads(places, 4)
    uri = "nbd+unix:///drive-scsi0?socket=socket"
    before = server.cpu()
    row["whole disk, nbdcopy"] = seconds(["nbdcopy", "--destination-is-zero", uri, "null:"])
    row["whole disk, server's CPU"] = server.cpu() - before
    row["whole disk, qemu-img"] = seconds(["qemu-img", "convert", "-O", "raw", uri, "copy.raw"])
    os.remove("copy.raw")
    row["memory, MiB"] = server.memory()
    server.end()
    os.makedirs("mnt", exist_ok=True)
    begin = time.monotonic()
    subprocess.run([PROGRAM, "vma", "mount", backup, "mnt"], check=True, stdout=subprocess.DEVNULL)
    image = os.open("mnt/disk-drive-scsi0.raw", os.O_RDONLY)
    os.pread(image, 512, 0)
    row["mount: first byte"] = time.monotonic() - begin
    begin = time.monotonic()
    for at in places:
        os.pread(image, 4096, at)
    row["mount: random reads/s"] = len(places) / (time.monotonic() - begin)
    os.close(image)
    row["mount: whole disk, cp"] = seconds(["cp", "--sparse=auto", "mnt/disk-drive-scsi0.raw", "copy.raw"])
    os.remove("copy.raw")
    subprocess.run(["umount", "mnt"], check=True)
    before = os.times()
    row["restore"] = seconds(restore + " >/dev/null")
    row["restore, CPU"] = sum(os.times()[2:4]) - sum(before[2:4])
    row["vma extract"] = seconds([PROGRAM, "vma", "extract", backup, "out"])
    # What a loop device, or qemu-img, then reads of.
    image = os.open("out/disk-drive-scsi0.raw", os.O_RDONLY)
    begin = time.monotonic()
    for at in places:
        os.pread(image, 4096, at)
    row["extracted: random reads/s"] = len(places) / (time.monotonic() - begin)
    os.close(image)
    row["extracted: qemu-img"] = seconds(["qemu-img", "convert", "-O", "raw", "out/disk-drive-scsi0.raw", "copy.raw"])
    os.remove("copy.raw")
    shutil.rmtree("out")
    return row


def container(backup, unpack):
    os.makedirs("all", exist_ok=True)
    row = Row()
    row["unpack"] = seconds(unpack)
    shutil.rmtree("all")
    for name in ("one file, first time", "one file, again"):
        row[name] = seconds([PROGRAM, "tar", "extract", backup, "20/500", "-C", "one"])
        shutil.rmtree("one")
    return row


make()
shutil.rmtree("cache", ignore_errors=True)
full = "vm.vma.zst"
differential = "vm.vma.zst--differential-2026_11_05-02_00_00.vcdiff.zst"
load = [os.getloadavg()[0]]
rows = {
    "full with map": disk(full, f"zstd -dcq {full}"),
    "differential, first time": disk(differential, f"{PROGRAM} restore {differential}"),
    "differential, again": disk(differential, f"{PROGRAM} restore {differential}"),
}
load.append(os.getloadavg()[0])
names = list(next(iter(rows.values())))
lines = [
    "# Results of benches/look.sh\n",
    f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, {os.uname().machine}; load average {load[0]:.1f} before and {load[1]:.1f} at "
    f"the end. A disk of {GIB} GiB with {DATA} MiB of data, read from files that are in memory; a container of 2 GiB. Seconds, where "
    "nothing else is said. A restore is that of the whole backup to nowhere (of the full by zstd -d).\n",
]
lines.append("| | " + " | ".join(rows) + " |")
lines.append("|---" * (len(rows) + 1) + "|")
for name in names:
    lines.append(f"| {name} | " + " | ".join(f"{row[name]:.2f}" for row in rows.values()) + " |")
lines.append("| restore / nbdcopy | " + " | ".join(f"{row['restore'] / row['whole disk, nbdcopy']:.2f}" for row in rows.values()) + " |")
lines.append("\n| container | unpack | one file, first time | one file, again | unpack / again |\n|---|---|---|---|---|")
for name, backup in (("full with map", "ct.tar.zst"), ("stock zstd", "stock.tar.zst")):
    row = container(backup, f"zstd -dcq {backup} | tar -xf - -C all")
    values = [row["unpack"], row["one file, first time"], row["one file, again"], row["unpack"] / row["one file, again"]]
    lines.append(f"| {name} | " + " | ".join(f"{value:.2f}" for value in values) + " |")
with open(RESULTS, "w") as out:
    out.write("\n".join(lines) + "\n")
print("\n".join(lines))
