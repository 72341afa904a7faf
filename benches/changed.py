"""changed.py PROGRAM DIR RESULTS [GIB...]: see changed.sh."""
import hashlib, os, platform, random, re, shutil, struct, subprocess, sys, tempfile, time

program, folder, results = (os.path.abspath(arg) for arg in sys.argv[1:4])
# Of each disk: GiB, and MiB of data in each 64 MiB.
disks = [(int(gib), int(fill or 8)) for gib, _, fill in (arg.partition(":") for arg in sys.argv[4:] or ["1", "4", "16"])]
os.makedirs(folder, exist_ok=True)
work = tempfile.TemporaryDirectory(dir=folder)
os.chdir(work.name)
MIB, GIB, NAME = 1 << 20, 1 << 30, "drive-scsi0"


def sh(*command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def cost(process):
    """CPU seconds and peak MiB of a process that ends."""
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"failed ({status}): {process.args}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def read_all(size, command, out):
    """A backup that reads everything: the costs of our program alone, wall seconds."""
    began = time.time()
    create = [program, "vma", "create", "-", f"{NAME}=disk.raw", "--mixed"]
    with open(out, "wb") as to, subprocess.Popen(create, stdout=subprocess.PIPE) as vma:
        ours = subprocess.Popen([program, *command], stdin=vma.stdout, stdout=to)
        vma.stdout.close()
        cpu, peak = cost(ours)
    return cpu, peak, time.time() - began


def by_bitmap(out, previous=None):
    """A differential of what is dirty: our costs, wall seconds, QEMU's CPU seconds, MiB that were read."""
    if os.path.exists("nbd"):
        os.unlink("nbd")
    server = subprocess.Popen(["qemu-nbd", "-r", "-t", "-e", "2", "-f", "qcow2", "-x", "x", "-B", "b", "-k",
                               os.path.abspath("nbd"), "disk.qcow2"])
    while not os.path.exists("nbd"):
        time.sleep(0.01)
    command = [program, "compose", "--base", "full.vma.zst", "-v", "-f", "-o", out,
               "--disk", NAME, f"nbd+unix:///x?socket={os.path.abspath('nbd')}", "b"]
    began = time.time()
    ours = subprocess.Popen(command + (["--previous", previous] if previous else []), stderr=subprocess.PIPE)
    said = ours.stderr.read().decode()
    cpu, peak = cost(ours)
    wall = time.time() - began
    with open(f"/proc/{server.pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    qemu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    server.kill()
    server.wait()
    return cpu, peak, wall, qemu, float(re.search(r"read ([\d.]+) MiB", said)[1])


def clean():
    """Removes what this program made for the last disk."""
    for name in os.listdir(work.name):
        path = os.path.join(work.name, name)
        shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)


def new_disk(size, fill):
    """A disk with some data, half of which compresses well."""
    clean()
    # QEMU makes the file of the data anew.
    sh("qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file=disk.raw,data_file_raw=on", "disk.qcow2", str(size))
    rng = random.Random(size)
    with open("disk.raw", "r+b") as f:
        for at in range(0, size, 64 * MIB):
            f.seek(at)
            for _ in range(fill):
                f.write(rng.randbytes(MIB // 2))
                f.write(b"".join(b"%08d some text of a log, as there is on every disk\n" % rng.randrange(10**8)
                                 for _ in range(MIB // 2 // 56)))
    sh("qemu-img", "bitmap", "--add", "-g", "65536", "disk.qcow2", "b")


def clear():
    sh("qemu-img", "bitmap", "--clear", "disk.qcow2", "b")


def write(commands):
    subprocess.run(["qemu-io", "-f", "qcow2", "disk.qcow2"], input="".join(commands).encode(), check=True,
                   stdout=subprocess.DEVNULL)


def rewrite(size, fill, left):
    """Writes so many bytes of new data, half of it over old, in pieces of 64 to 512 KiB."""
    rng, commands = random.Random(size + 1), []
    for n in range(128):
        with open(f"new{n}", "wb") as f:
            f.write(rng.randbytes(MIB // 2))
    while left > 0:
        length = min(65536 * rng.randrange(1, 9), left)
        at = rng.randrange(size // (64 * MIB)) * 64 * MIB + rng.randrange(fill * 16 - 8) * 65536
        if fill <= 16:
            at += rng.choice([0, 32 * MIB])
        commands.append(f"write -q -s new{rng.randrange(128)} {at} {length}\n")
        left -= length
    write(commands)


def edit(size, fill, clusters):
    """Writes 512 bytes into one block of each of so many clusters with old data, as a database does."""
    rng, commands = random.Random(size + 2), []
    for _ in range(clusters):
        at = rng.randrange(size // (64 * MIB)) * 64 * MIB + rng.randrange(fill * MIB // 512) * 512
        commands.append(f"write -q -P {rng.randrange(1, 255)} {at} 512\n")
    write(commands)


def empty_archive(out, size):
    """The archive of an empty disk, as QEMU makes it: nothing but extents' headers."""
    blob = bytes(1) + struct.pack("<H", len(NAME) + 1) + NAME.encode() + b"\0"
    head = bytearray(12288) + blob.ljust(512, b"\0")
    head[:8], head[8:24] = b"VMA\0" + struct.pack(">I", 1), bytes(range(16))
    struct.pack_into(">III", head, 48, 12288, len(blob), len(head))
    struct.pack_into(">IIQ", head, 4096 + 32, 1, 0, size)
    head[32:48] = hashlib.md5(head).digest()
    out.write(head)
    clusters = size // 65536
    for first in range(0, clusters, 59):
        slots = [1 << 32 | n for n in range(first, min(first + 59, clusters))]
        extent = bytearray(512)
        extent[:4], extent[8:24] = b"VMAE", head[8:24]
        struct.pack_into(f">{len(slots)}Q", extent, 40, *slots)
        extent[24:40] = hashlib.md5(extent).digest()
        out.write(extent)


def megabytes(path):
    return os.path.getsize(path) / 1e6


lines = []


def row(*cells):
    lines.append("| " + " | ".join(cell if isinstance(cell, str) else f"{cell:.2f}" for cell in cells) + " |")
    print(lines[-1], flush=True)


row("disk", "what", "CPU s", "wall s", "peak MiB", "QEMU's CPU s", "read MiB", "size MB", "CPU of reading all")
lines.append("|" + "---|" * 9)
for gib, fill in disks:
    size, disk = gib * GIB, f"{gib} GiB" if fill == 64 else f"{gib} GiB, {gib * fill * 16} MiB of data"
    new_disk(size, fill)
    cpu, peak, wall = read_all(size, ["full"], "full.vma.zst")
    row(disk, "full", cpu, wall, peak, "", f"{size // MIB}", megabytes("full.vma.zst"), "")
    # A hundredth of the data.
    dirty = size * fill // 64 // 100 // 65536 * 65536
    rewrite(size, fill, dirty)
    cpu, peak, wall = read_all(size, ["diff", "--base", "full.vma.zst"], "all.zst")
    all_cpu = cpu
    row(disk, "1 % new data, reading all", cpu, wall, peak, "", f"{size // MIB}", megabytes("all.zst"), "1")
    for what, previous in ("by bitmap", None), ("the same behind one that read all", "all.zst"):
        cpu, peak, wall, qemu, read = by_bitmap("dirty.zst", previous)
        row(disk, what, cpu, wall, peak, qemu, read, megabytes("dirty.zst"), f"1/{all_cpu / cpu:.0f}")
    clear()
    cpu, peak, wall, qemu, read = by_bitmap("none.zst", "dirty.zst")
    row(disk, "nothing dirty, behind that", cpu, wall, peak, qemu, read, megabytes("none.zst"), f"1/{all_cpu / cpu:.0f}")
    edit(size, fill, dirty // 65536)
    cpu, peak, wall = read_all(size, ["diff", "--base", "full.vma.zst"], "all.zst")
    all_cpu = cpu
    row(disk, "512 bytes of another 1 %, reading all", cpu, wall, peak, "", f"{size // MIB}", megabytes("all.zst"), "1")
    cpu, peak, wall, qemu, read = by_bitmap("dirty.zst", "none.zst")
    row(disk, "by bitmap, behind the last", cpu, wall, peak, qemu, read, megabytes("dirty.zst"), f"1/{all_cpu / cpu:.0f}")
    with subprocess.Popen([program, "restore", "--base", "full.vma.zst", "dirty.zst"], stdout=subprocess.PIPE) as restore:
        subprocess.run([program, "vma", "extract", "-", "restored"], stdin=restore.stdout, check=True, stdout=subprocess.DEVNULL)
    if subprocess.run(["cmp", "disk.raw", f"restored/disk-{NAME}.raw"]).returncode:
        sys.exit("the restored disk differs")

clean()
size = 1 << 40
with open("full.vma.zst", "wb") as to:
    full = subprocess.Popen([program, "full"], stdin=subprocess.PIPE, stdout=to)
    empty_archive(full.stdin, size)
    full.stdin.close()
    cost(full)
sh("qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file=disk.raw,data_file_raw=on", "disk.qcow2", str(size))
sh("qemu-img", "bitmap", "--add", "-g", "65536", "disk.qcow2", "b")
for what, previous in ("nothing dirty, no differential before", None), ("nothing dirty, behind that", "first.zst"):
    cpu, peak, wall, qemu, read = by_bitmap("second.zst" if previous else "first.zst", previous)
    row("1 TiB, empty", what, cpu, wall, peak, qemu, read, megabytes("first.zst"), "")

with open(results, "w") as f:
    f.write("# Differentials of what is dirty\n\nMade by `benches/changed.sh` on "
            f"{os.cpu_count()} x {platform.processor() or platform.machine()}, Linux {platform.release()}.\n"
            "1 % is a hundredth of a disk's data. `reading all` is `pve-xdelta3 diff` of the whole archive, without QEMU's own cost of\n"
            "reading the disk; `by bitmap` is `pve-xdelta3 compose`, with QEMU's cost beside it (qemu-nbd of Debian 12).\n\n")
    f.write("\n".join(lines) + "\n")
