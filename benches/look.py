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

    def read(self, at, length):
        self.line.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 0, 1, at, length))
        assert struct.unpack(">IIQ", self.take(16))[1] == 0
        return self.take(length)

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
    places = [((n * (GIB << 10) // DATA) << 20) + 4096 * rng.randrange(256) for n in rng.choices(range(DATA), k=2000)]
    for name, count in (("random reads/s, first time", 500), ("random reads/s, again", 2000)):
        begin = time.monotonic()
        for at in places[:count]:
            server.read(at, 4096)
        row[name] = count / (time.monotonic() - begin)
    uri = "nbd+unix:///drive-scsi0?socket=socket"
    row["whole disk, nbdcopy"] = seconds(["nbdcopy", "--destination-is-zero", uri, "null:"])
    row["whole disk, qemu-img"] = seconds(["qemu-img", "convert", "-O", "raw", uri, "copy.raw"])
    os.remove("copy.raw")
    row["memory, MiB"] = server.memory()
    server.end()
    row["restore"] = seconds(restore + " >/dev/null")
    row["vma extract"] = seconds([PROGRAM, "vma", "extract", backup, "out"])
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
lines = [f"# Looking into backups\n", f"{GIB} GiB disk with {DATA} MiB of data; container of 2 GiB. Made by look.sh, {os.cpu_count()} processors.\n"]
rows = {
    "full with map": disk(full, f"zstd -dcq {full}"),
    "differential, first time": disk(differential, f"{PROGRAM} restore {differential}"),
    "differential, again": disk(differential, f"{PROGRAM} restore {differential}"),
}
names = list(next(iter(rows.values())))
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
