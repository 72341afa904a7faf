"""measure.py PROGRAM DIR RUNS RESULTS: see run.sh."""
import os, platform, shutil, statistics, subprocess, sys, time

program, folder, runs, results = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
unpack = os.path.join(os.path.dirname(program), "examples", "unpack")
os.chdir(folder)


def run(command, stdin=None, stdout=None):
    """CPU seconds, wall seconds and peak MiB of a command."""
    before = time.time()
    with open(stdin or os.devnull, "rb") as i, open(stdout or os.devnull, "wb") as o:
        pid = subprocess.Popen(command, stdin=i, stdout=o).pid
        _, status, usage = os.wait4(pid, 0)
    if status:
        sys.exit(f"failed ({status}): {command}")
    return usage.ru_utime + usage.ru_stime, time.time() - before, usage.ru_maxrss / 1024


def measure(jobs):
    """Runs jobs {name: (command, stdin, stdout, how often)} in turns; medians by name."""
    seen = {name: [] for name in jobs}
    for turn in range(runs):
        for name, (command, stdin, stdout, often) in jobs.items():
            if turn < often:
                seen[name].append(run(command, stdin, stdout))
    return {name: [statistics.median(r[n] for r in rows) for n in range(3)] for name, rows in seen.items()}


def megabytes(path):
    return os.path.getsize(path) / 1e6


def same(command, path):
    with subprocess.Popen(command, stdout=subprocess.PIPE) as p:
        if subprocess.run(["cmp", "-s", "-", path], stdin=p.stdout).returncode:
            sys.exit(f"wrong output: {command}")


def first_byte(command):
    """Seconds until a command has written something."""
    began = time.time()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as p:
        p.stdout.read(1)
        seconds = time.time() - began
        p.kill()
    return seconds


def zstd_1(path):
    """As vzdump would store it; the CPU seconds of that."""
    cpu = run(["zstd", "-q", "-f", "-1", path, "-o", path + ".zst"])[0]
    os.replace(path + ".zst", path)
    return cpu


hdiffz = os.environ.get("HDIFFZ") or shutil.which("hdiffz")
hasher = shutil.which("xxhsum")
quick = bool(os.environ.get("QUICK"))
lines = []
for kind in ("vma", "tar"):
    full, day = f"full.{kind}", f"day.{kind}"

    def diff(base, threads, target=day):
        return [program, "diff", "--base", base, "--compress", "zstd", "--level", "1", "--threads", threads], target

    def restore(base, delta, threads):
        return ["taskset", "-c", "0" if threads == "1" else "0,1", program, "restore", "--threads", threads, "--base", base, delta]

    run(["zstd", "-q", "-f", "-3", "-T1", full, "-o", "stock.zst"])
    run(["zstd", "-q", "-f", "-3", "-T1", day, "-o", "stock.day.zst"])
    run([program, "full", "--threads", "1"], full, "full.zst")
    # name: command, standard input, file made, how often
    jobs = {}
    for threads in ("1", "2"):
        jobs[f"full backup: zstd -3 -T{threads}"] = (["zstd", "-q", "-3", f"-T{threads}", "-c"], full, "z", runs)
        jobs[f"full backup: ours, threads {threads}"] = ([program, "full", "--threads", threads], full, "o", runs)
        jobs[f"stock full of the new day: zstd -3 -T{threads}"] = (["zstd", "-q", "-3", f"-T{threads}", "-c"], day, "y", runs)
    reference = "diff: xdelta3 -e as the original calls it"
    huge = ["xdelta3", "-e", "-q", "-c", "-f", "-S", "none", "-B", "2147483648", "-s", full, day]
    then_zstd = {}
    if not quick:
        jobs[reference] = (["xdelta3", "-e", "-q", "-c", "-f", "-s", full, day], None, "x", 1)
        then_zstd = {"x2": "diff: xdelta3 -S none -B 2147483648", "x9": "diff: xdelta3 -9 -S none -B 2147483648"}
        jobs[then_zstd["x2"]] = (huge, None, "x2", 1)
        jobs[then_zstd["x9"]] = (huge[:2] + ["-9"] + huge[2:], None, "x9", 1)
    if not quick and max(os.path.getsize(full), os.path.getsize(day)) < 1 << 31:
        jobs["diff: zstd -1 --patch-from --long=31"] = (["zstd", "-q", "-1", "-c", "--long=31", f"--patch-from={full}", day], None, "p", 1)
    if hdiffz:
        for block in ("64", "1k"):
            name = f"diff: hdiffz -s-{block}"
            jobs[name] = ([hdiffz, f"-s-{block}", "-f", full, day, f"h{block}"], None, None, runs)
            then_zstd[f"h{block}"] = name
    for threads in ("1", "2"):
        command, target = diff("full.zst", threads)
        jobs[f"diff: ours, threads {threads}"] = (command, target, f"d{threads}", runs)
    if kind == "vma":
        command, target = diff("full.zst", "1", "rerun.vma")
        jobs["diff: ours, nothing changed"] = (command, target, "n", runs)
    command, target = diff(full, "1")
    jobs["diff: ours, base not compressed"] = (command, target, "r", runs)
    command, target = diff("stock.zst", "1")
    jobs["diff: ours, base is a stock zstd"] = (command, target, "s", runs)
    raw, _ = diff("full.zst", "1")
    run(raw[:raw.index("zstd")] + ["none"], day, "new")
    jobs["floor: zstd -1 of the new bytes"] = (["zstd", "-q", "-1", "-T1", "-c"], "new", "w", runs)
    if hasher:
        name = "floor: read a pipe and hash the stream (xxhsum -H2), zstd -1 of the new bytes"
        jobs[name] = (["sh", "-c", f"cat {day} | {hasher} -H2 && zstd -q -1 -T1 -c new"], None, "w", runs)
    jobs["decode: zstd -d of the base, one core"] = (["taskset", "-c", "0", "zstd", "-q", "-d", "-c", "stock.zst"], None, None, runs)
    jobs["decode: zstd -d of the new day's stock full, one core"] = (["taskset", "-c", "0", "zstd", "-q", "-d", "-c", "stock.day.zst"], None, None, runs)
    jobs["decode: ours, one core"] = (restore("full.zst", "d1", "1"), None, None, runs)
    jobs["decode: ours, two cores"] = (restore("full.zst", "d2", "2"), None, None, runs)
    jobs["decode: ours, base is a stock zstd"] = (restore("stock.zst", "s", "1"), None, None, runs)
    if kind == "tar" and not quick:
        # What is measured of lzop and gzip: half a GB, and what each makes of it.
        run(["head", "-c", "500000000", full], None, "part")
        run(["lzop", "-q", "-f", "part", "-o", "part.lzo"])
        run(["gzip", "-1", "-c", "part"], None, "part.gz")
        jobs["lzop, 500 MB: lzop"] = (["lzop", "-q", "-c", "part"], None, "part.l", runs)
        jobs["lzop, 500 MB decoded: lzop -d"] = (["lzop", "-q", "-d", "-c", "part.lzo"], None, None, runs)
        jobs["gzip, 500 MB: gzip -1"] = (["gzip", "-1", "-c", "part"], None, "part.g", runs)
        if shutil.which("pigz"):
            jobs["gzip, 500 MB: pigz -1 -p2"] = (["pigz", "-1", "-p2", "-c", "part"], None, "part.p", runs)
        jobs["gzip, 500 MB decoded: gzip -d"] = (["gzip", "-d", "-c", "part.gz"], None, None, runs)
        jobs["gzip, 500 MB decoded: ours"] = ([unpack, "part.gz"], None, None, runs)
        for threads in ("1", "2"):
            full_of = [program, "full", "--threads", threads, "--compress"]
            jobs[f"lzop, 500 MB: ours, threads {threads}"] = ([*full_of, "lzo"], "part", f"part.l{threads}", runs)
            jobs[f"lzop, 500 MB decoded: ours, threads {threads}"] = ([unpack, "part.lzo", threads], None, None, runs)
            jobs[f"gzip, 500 MB: ours, level 1, threads {threads}"] = ([*full_of, "gzip", "--level", "1"], "part", f"part.g{threads}", runs)
    figures = measure(jobs)
    for path, name in then_zstd.items():
        figures[name][0] += zstd_1(path)
    same(restore("full.zst", "d1", "2"), day)
    same(restore("full.zst", "d2", "1"), day)
    same(restore("stock.zst", "s", "1"), day)
    same(restore(full, "r", "1"), day)

    lines += [f"\n## {kind}: {megabytes(full):.0f} MB, a day later {megabytes(day):.0f} MB\n"]
    lines += ["| what | CPU s | xdelta3's, times | wall s | peak MiB | stored MB |", "|---|---|---|---|---|---|"]
    for name, (cpu, wall, peak) in figures.items():
        out = next((path for path, n in then_zstd.items() if n == name), jobs[name][2])
        size = f"{megabytes(out):.2f}" if out else ""
        times = f"{figures[reference][0] / cpu:.1f}" if name.startswith("diff") and not quick else ""
        lines.append(f"| {name} | {cpu:.2f} | {times} | {wall:.1f} | {peak:.0f} | {size} |")

    if kind == "tar" or quick:
        continue
    run(["lzop", "-q", "-f", full, "-o", "stock.lzo"])
    run(["gzip", "-1", "-c", full], None, "stock.gz")
    lines += ["\nSeconds until the first byte of a restore, by the base (the best of three):", ""]
    # What can only be read from its start has differentials that copy in its order.
    for base, delta in (("full.zst", "d1"), (full, "r"), ("stock.lzo", "d1"), ("stock.zst", "s"), ("stock.gz", "s")):
        seconds = min(first_byte([program, "restore", "--base", base, delta]) for _ in range(3))
        lines.append(f"* {base}: {seconds:.2f}")

with open(results, "w") as out:
    out.write("# Results of benches/run.sh\n\n")
    out.write(f"{time.strftime('%F')}, {os.cpu_count()} cores, {platform.machine()}. CPU seconds are user + system, medians of {runs} runs in turns ")
    out.write("(xdelta3 and zstd --patch-from: one). The machine was shared: wall seconds say little. ")
    out.write("Deltas that are not compressed (xdelta3 -S none, hdiffz) are stored through zstd -1, whose CPU time is in theirs.\n")
    out.write("\n".join(lines) + "\n")
print(open(results).read())
