"""unseen.py PROGRAM DIR RESULTS RUNS BUSY SET...: see unseen.sh."""
import contextlib, os, platform, shutil, statistics, subprocess, sys, time

program, folder, results, runs, busy = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
sets = sys.argv[6:]
quick = bool(os.environ.get("QUICK"))
hdiffz = os.environ.get("HDIFFZ") or shutil.which("hdiffz")


def run(command, stdin=None, out=os.devnull):
    """CPU seconds and wall seconds of a command. What it reads comes through a pipe, as it does from vzdump."""
    feeder = stdin and subprocess.Popen(["cat", stdin], stdout=subprocess.PIPE)
    began = time.time()
    with open(out, "wb") as sink:
        process = subprocess.Popen(command, stdin=feeder.stdout if feeder else subprocess.DEVNULL, stdout=sink)
    if feeder:
        feeder.stdout.close()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.time() - began
    if status or (feeder and feeder.wait()):
        sys.exit(f"failed ({status}): {command}")
    return usage.ru_utime + usage.ru_stime, wall


@contextlib.contextmanager
def others(count):
    """Lets so many processes compete for the processors."""
    rivals = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for rival in rivals:
            rival.kill()
            rival.wait()


def ratios(ours, theirs):
    """Runs two commands in turns: the medians of ours / theirs, for CPU and wall seconds, and of our CPU seconds."""
    pairs = [(run(*ours), run(*theirs)) for _ in range(runs)]
    cpu, wall = ([a[n] / b[n] for a, b in pairs] for n in (0, 1))
    return statistics.median(cpu), statistics.median(wall), statistics.median(a[0] for a, _ in pairs)


def megabytes(path):
    return os.path.getsize(path) / 1e6


def same(command, path):
    with subprocess.Popen(command, stdout=subprocess.PIPE) as p:
        if subprocess.run(["cmp", "-s", "-", path], stdin=p.stdout).returncode:
            sys.exit(f"wrong output: {command}")


def stored(command, compress):
    """MB of what another program makes of the day, through zstd -1 where it does not compress itself."""
    run(command, None, os.devnull if "other" in command else "other")
    if compress:
        run(["zstd", "-q", "-f", "-1", "other", "-o", "other.zst"])
        os.replace("other.zst", "other")
    return megabytes("other")


def rivals(full, day):
    yield "xdelta3 -9 -B", ["xdelta3", "-e", "-9", "-q", "-c", "-f", "-S", "none", "-B", "2147483648", "-s", full, day], True
    if max(os.path.getsize(full), os.path.getsize(day)) < 1 << 31:
        yield "zstd --patch-from", ["zstd", "-q", "-1", "-c", "--long=31", f"--patch-from={full}", day], False
    for block in ("64", "1k") if hdiffz else ():
        yield f"hdiffz -s-{block}", [hdiffz, f"-s-{block}", "-f", full, day, "other"], True


lines = []
for name in sets:
    os.chdir(os.path.join(folder, name))
    kinds = sorted(f[5:] for f in os.listdir() if f.startswith("full.") and f.endswith((".vma", ".tar")))
    for kind in kinds:
        full, day = f"full.{kind}", f"day.{kind}"
        print(f"{name} {kind}", flush=True)
        run(["zstd", "-q", "-f", "-3", "-T1", full, "-o", "stock.zst"])
        run(["zstd", "-q", "-f", "-3", "-T1", day, "-o", "stock.day.zst"])
        run([program, "full", "--threads", "1"], full, "ours.zst")
        diff = [program, "diff", "--compress", "zstd", "--level", "1", "--threads"]
        run([*diff, "1", "--base", "ours.zst"], day, "delta")
        run([*diff, "1", "--base", "stock.zst"], day, "delta.stock")
        restore = [program, "restore", "--threads"]
        same([*restore, "2", "--base", "ours.zst", "delta"], day)
        same([*restore, "1", "--base", "stock.zst", "delta.stock"], day)
        jobs = {}
        for n in ("1", "2"):
            zstd = ["zstd", "-q", "-3", f"-T{n}", "-c"]
            jobs[f"full, {n} thread(s) / zstd -3 -T{n}"] = ([program, "full", "--threads", n], full, "o"), (zstd, full, "z")
            jobs[f"differential, {n} / zstd -3 -T{n} of the day"] = ([*diff, n, "--base", "ours.zst"], day, "o"), (zstd, day, "z")
            decode = ["zstd", "-q", "-d", "-c", "stock.day.zst"]
            jobs[f"restore, {n} / zstd -d of the day"] = ([*restore, n, "--base", "ours.zst", "delta"],), (decode,)
        jobs["differential against a stock zstd / with a map"] = (
            ([*diff, "1", "--base", "stock.zst"], day, "o"),
            ([*diff, "1", "--base", "ours.zst"], day, "z"),
        )
        lines += [f"\n## {name}, {kind}: {megabytes(full):.0f} MB, a day later {megabytes(day):.0f} MB\n"]
        lines += ["| ours / theirs | CPU | wall | wall, busy | CPU, busy | CPU s of ours |", "|---|---|---|---|---|---|"]
        for what, (ours, theirs) in jobs.items():
            cpu, wall, seconds = ratios(ours, theirs)
            loaded = ("", "")
            if busy:
                with others(busy):
                    loaded = [f"{ratio:.2f}" for ratio in ratios(ours, theirs)[:2]]
            lines.append(f"| {what} | {cpu:.2f} | {wall:.2f} | {loaded[1]} | {loaded[0]} | {seconds:.2f} |")
            print(lines[-1], flush=True)
        sizes = [megabytes(path) for path in ("stock.zst", "ours.zst", "delta", "delta.stock")]
        lines += [
            "",
            f"Stored: full {sizes[0]:.2f} MB by zstd -3, ours {sizes[1]:.2f} MB ({sizes[1] / sizes[0] * 100 - 100:+.1f} %); "
            f"differential {sizes[2]:.2f} MB, against the stock zstd {sizes[3]:.2f} MB ({sizes[3] / sizes[2]:.2f} times).",
        ]
        if not quick:
            found = [f"{who} {stored(command, compress):.2f} MB" for who, command, compress in rivals(full, day)]
            lines.append(f"Differentials of others: {', '.join(found)}.")
        print(lines[-1], flush=True)
        for path in ("stock.zst", "stock.day.zst", "ours.zst", "delta", "delta.stock", "o", "z", "other"):
            if os.path.exists(path):
                os.remove(path)

with open(results, "w") as out:
    out.write("# Results of benches/unseen.sh\n\n")
    out.write(f"{time.strftime('%F')}, {os.cpu_count()} cores, {platform.machine()}. Ratios, ours / theirs: medians of {runs} pairs in turns. ")
    out.write(f"Busy: while {busy} other processes compete. CPU seconds are user + system.\n")
    out.write("\n".join(lines) + "\n")
