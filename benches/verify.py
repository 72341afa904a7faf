"""verify.py PROGRAMS DIR MIB RUNS: see verify.sh."""
import io, os, random, shutil, statistics, subprocess, sys, tarfile, time

programs, folder, mib, runs = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
MIB, DAYS = 1 << 20, 8
os.chdir(folder)
rng = random.Random(1)
words = [rng.randbytes(rng.randint(2, 9)).hex().encode() for _ in range(5000)]


def data(size):
    """Half of it text, half what does not compress."""
    if rng.random() < 0.5:
        return rng.randbytes(size)
    return b" ".join(rng.choices(words, k=size // 8 + 1))[:size].ljust(size)


def cost(command, stdin=None, stdout=None):
    """CPU and wall seconds of a command."""
    before = time.time()
    with open(stdin or os.devnull, "rb") as i, open(stdout or os.devnull, "wb") as o:
        pid = subprocess.Popen(command, stdin=i, stdout=o).pid
        _, status, usage = os.wait4(pid, 0)
    if status:
        sys.exit(f"failed ({status}): {command}")
    return usage.ru_utime + usage.ru_stime, time.time() - before


class Machine:
    """A disk of twice the data, in runs of 1 MiB. A day writes 64 KiB in each of 1 % of them, and 4 KiB in another 2 %."""
    kind = "qemu-101", "vma"

    def __init__(self):
        self.disk = f"{folder}/disk.raw"
        with open(self.disk, "wb") as f:
            f.truncate(2 * mib * MIB)
            for at in range(mib):
                f.seek(2 * at * MIB)
                f.write(data(MIB))

    def change(self):
        with open(self.disk, "r+b") as f:
            for size, part in (64 << 10, 100), (4 << 10, 50):
                for at in rng.sample(range(mib), max(mib // part, 1)):
                    f.seek(2 * at * MIB + rng.randrange(0, MIB - size, 4096))
                    f.write(data(size))

    def write(self, path):
        create = [f"{programs}/pve-xdelta3", "vma", "create", path, f"drive-scsi0={self.disk}", "--mixed"]
        subprocess.run(create, check=True)


class Container:
    """Files of 1 KiB to 1 MiB, most of them small. A day changes a part of 1 % of them, and writes 1 % anew."""
    kind = "lxc-100", "tar"

    def __init__(self):
        self.files, left = {}, mib * MIB
        while left > 0:
            size = min(int(1024 * 2 ** rng.triangular(0, 10, 6)), left)
            self.files[f"srv/{len(self.files) % 97}/{len(self.files)}"] = data(size)
            left -= size

    def change(self):
        names = list(self.files)
        for name in rng.sample(names, max(len(names) // 100, 1)):
            whole = self.files[name]
            at = rng.randrange(len(whole))
            self.files[name] = whole[:at] + data(100) + whole[at:]
        for name in rng.sample(names, max(len(names) // 100, 1)):
            self.files[name] = data(len(self.files[name]))

    def write(self, path):
        with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
            for name, content in sorted(self.files.items()):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def chain(guest):
    """Folders with the full and eight differentials, and with one of these."""
    name, form = guest.kind
    full = f"vzdump-{name}-2026_11_01-01_00_02.{form}.zst"
    eight, one = f"{name}/eight", f"{name}/one"
    shutil.rmtree(name, ignore_errors=True)
    os.makedirs(eight), os.makedirs(one)
    for day in range(DAYS + 1):
        if day:
            guest.change()
        guest.write("stream")
        made = f"{full}--differential-2026_11_{day + 1:02}-01_00_02.vcdiff.zst" if day else full
        command = ["diff", f"--base={eight}/{full}"] if day else ["full"]
        cost([f"{programs}/pve-xdelta3", *command], "stream", f"{eight}/{made}")
        if day in (0, DAYS // 2):
            os.link(f"{eight}/{made}", f"{one}/{made}")
        os.remove("stream")
    return eight, one


print("| guest | differentials | CPU s | wall s | CPU, of one | wall, of one |\n|---|---|---|---|---|---|")
for guest in Machine, Container:
    eight, one = chain(guest())
    seen = {it: [] for it in (one, eight)}
    for _ in range(runs):
        for it in seen:
            seen[it].append(cost([f"{programs}/pve-diff-backup", "verify", "--quiet", it]))
    of = {it: [statistics.median(row[n] for row in rows) for n in range(2)] for it, rows in seen.items()}
    for it, count in (one, 1), (eight, DAYS):
        cpu, wall = of[it]
        print(f"| {guest.kind[1]} | {count} | {cpu:.2f} | {wall:.2f} | {cpu / of[one][0]:.2f} | {wall / of[one][1]:.2f} |")
