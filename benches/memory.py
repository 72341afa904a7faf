"""memory.py PROGRAM RESULTS GIB...: see memory.sh."""
import hashlib, os, platform, struct, subprocess, sys, tempfile, threading, time

BLOCK, CLUSTER = 4096, 65536
GIB = 1 << 30
# A constant rest keeps the files small; the number in front makes every block, and every fingerprint, another.
REST = b"".join(hashlib.sha512(bytes([n])).digest() for n in range(64))[8:]


def blocks(first, count, day):
    """Numbered blocks. A day later every 64th is another."""
    out = bytearray((bytes(8) + REST) * count)
    for n in range(count):
        number = first + n
        struct.pack_into("<Q", out, n * BLOCK, number + 1 | (1 << 63 if day and number % 64 == 0 else 0))
    return out


def plain(out, size, day):
    """Anything that is not a VM, such as a tar stream. A day later something was put in at the front."""
    if day:
        out.write(b"new " * 1000)
    for first in range(0, size // BLOCK, 256):
        out.write(blocks(first, 256, day))


def vma(out, size, day, stored):
    """A VM's disk of so many bytes, whose every so manieth cluster is stored. A day later they are in another order."""
    uuid = os.urandom(16)
    name = b"drive-scsi0\0"
    blob = b"\0" + struct.pack("<H", len(name)) + name
    length = -(-(12288 + len(blob)) // 512) * 512
    head = bytearray(length)
    struct.pack_into(">4sI16sq16xIII", head, 0, b"VMA\0", 1, uuid, 0, 12288, len(blob), length)
    struct.pack_into(">IIQ", head, 4096 + 32, 1, 0, size)
    head[12288 : 12288 + len(blob)] = blob
    head[32:48] = hashlib.md5(head).digest()
    out.write(head)

    def extent(numbers):
        entries = b"".join(struct.pack(">HBBI", 0 if n % stored else 0xFFFF, 0, 1, n) for n in numbers)
        data = [blocks(n * 16, 16, day) for n in numbers if n % stored == 0]
        head = bytearray(512)
        struct.pack_into(">4sHH16s16x", head, 0, b"VMAE", 0, 16 * len(data), uuid)
        head[40 : 40 + len(entries)] = entries
        head[24:40] = hashlib.md5(head).digest()
        out.write(head)
        for part in data:
            out.write(part)

    pending = []
    for group in range(0, size // CLUSTER, 256):
        pending += range(group, group + 256) if not day else (group + n % 16 * 16 + n // 16 for n in range(256))
        while len(pending) >= 58:
            extent(pending[:58])
            del pending[:58]
    extent(pending)


STREAMS = {
    "plain": plain,
    "vma": lambda out, size, day: vma(out, size, day, 1),
    "sparse": lambda out, size, day: vma(out, size, day, 16),
}

# What is measured: the stream, and what makes its full backup. A zstd of another's is read alongside, an lzop anywhere.
CASES = [("plain", "ours"), ("vma", "ours"), ("sparse", "ours"), ("vma", "zstd -q -1 -c"), ("vma", "lzop -c")]

if sys.argv[1] == "stream":
    with open(sys.stdout.fileno(), "wb", buffering=1 << 20, closefd=False) as out:
        STREAMS[sys.argv[2]](out, int(sys.argv[3]) * GIB, sys.argv[4] == "day")
    sys.exit()


def measured(command, stream=None, out=os.devnull):
    """CPU seconds, peak MiB without and with mapped files. stream: what comes in, as a command."""
    feeder = stream and subprocess.Popen(stream, stdout=subprocess.PIPE)
    with open(out, "wb") as sink:
        process = subprocess.Popen(command, stdin=feeder.stdout if feeder else subprocess.DEVNULL, stdout=sink)
    if feeder:
        feeder.stdout.close()
    peak, over = [0], threading.Event()

    def sample():
        # The kernel keeps no peak of anonymous memory alone.
        while not over.wait(0.01):
            try:
                with open(f"/proc/{process.pid}/status") as status:
                    anonymous = [int(line.split()[1]) for line in status if line.startswith("RssAnon")]
            except OSError:
                return
            peak[0] = max(peak + anonymous)

    sampler = threading.Thread(target=sample)
    sampler.start()
    _, status, usage = os.wait4(process.pid, 0)
    over.set()
    sampler.join()
    if status or (feeder and feeder.wait()):
        sys.exit(f"failed: {command}")
    return usage.ru_utime + usage.ru_stime, peak[0] / 1024, usage.ru_maxrss / 1024


def step(kind, gib, base, folder):
    """Full backup, differential a day later, and its restore, by name: what `measured` says, and MB written."""
    full, delta = os.path.join(folder, "full"), os.path.join(folder, "delta")
    stream = lambda when: [sys.executable, __file__, "stream", kind, str(gib), when]
    ours = lambda command, *more: [program, command, "--threads", "2", *more]
    jobs = {
        "full": (ours("full") if base == "ours" else base.split(), stream("full"), full),
        "diff": (ours("diff", "--base", full), stream("day"), delta),
        "restore": (ours("restore", "--base", full, delta), None, os.devnull),
    }
    return {name: (measured(*job), os.path.getsize(job[2]) / 1e6) for name, job in jobs.items()}


program, results, *sizes = sys.argv[1:]
sizes = [int(gib) for gib in sizes or (1, 4, 16, 64)]
lines = [
    "# Results of benches/memory.sh",
    "",
    f"{time.strftime('%F')}, {os.cpu_count()} cores, {platform.machine()}, two threads. CPU seconds are user + system. Peak MiB: anonymous memory "
    "(sampled every 10 ms), and all of it with mapped files; in brackets what a further GiB of the guest costs, from the size before.",
]
titles = {
    "plain": "A stream of any bytes",
    "vma": "A VM, its disk full",
    "sparse": "A VM, a sixteenth of its disk in use",
}
with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="pve-xdelta3-memory.") as folder:
    for kind, base in CASES:
        lines += ["", f"## {titles[kind]}; the full backup made by {'us' if base == 'ours' else f'`{base}`'}", ""]
        lines += ["| GiB | step | CPU s | CPU s per GiB | anonymous MiB | all MiB | MB written |", "|---|---|---|---|---|---|---|"]
        before = {}
        for gib in sizes:
            for name, ((cpu, anonymous, peak), written) in step(kind, gib, base, folder).items():
                if name == "full" and base != "ours":
                    continue
                more = ""
                if name in before:
                    more = f" ({(anonymous - before[name][1]) / (gib - before[name][0]):+.2f})"
                before[name] = gib, anonymous
                size = f"{written:.2f}" if name != "restore" else ""
                lines.append(f"| {gib} | {name} | {cpu:.1f} | {cpu / gib:.2f} | {anonymous:.0f}{more} | {peak:.0f} | {size} |")
                print(kind, base, lines[-1], flush=True)
with open(results, "w") as out:
    out.write("\n".join(lines) + "\n")
