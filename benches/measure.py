"""measure.py PROGRAM DIR RUNS RESULTS: see run.sh."""
import os, platform, resource, statistics, subprocess, sys, time

program, folder, runs, results = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
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


lines = []
for kind in ("vma", "tar"):
    full, day = f"full.{kind}", f"day.{kind}"
    many = runs
    ours = [program, "diff", "--base", "full.zst", "--compress", "zstd", "--level", "1"]
    stock = [program, "diff", "--base", "stock.zst", "--compress", "zstd", "--level", "1"]
    subprocess.run(["xdelta3", "-V"], stderr=subprocess.DEVNULL, check=True)
    run(["zstd", "-q", "-f", "-3", "-T1", full, "-o", "stock.zst"])
    run([program, "full", "--threads", "1"], full, "full.zst")
    jobs = {
        "full backup: zstd -3 -T1": (["zstd", "-q", "-3", "-T1", "-c"], full, "z", many),
        "full backup: ours, 1 thread": ([program, "full", "--threads", "1"], full, "o", many),
        "stock full of the new day: zstd -3 -T1": (["zstd", "-q", "-3", "-T1", "-c"], day, "y", many),
        "diff: xdelta3 -e as the original calls it": (["xdelta3", "-e", "-q", "-c", "-f", "-s", full, day], None, "x", 1),
        "diff: xdelta3 -e -S none -B 2147483648": (["xdelta3", "-e", "-q", "-c", "-S", "none", "-B", "2147483648", "-s", full, day], None, "x2", 1),
        "diff: ours, 1 thread": (ours + ["--threads", "1"], day, "d", many),
        "diff: ours, 2 threads": (ours + ["--threads", "2"], day, "d", many),
        "diff: ours, base is a stock zstd": (stock + ["--threads", "1"], day, "s", many),
        "decode: zstd -d of the base": (["zstd", "-q", "-d", "-c", "stock.zst"], None, None, many),
        "decode: ours, 1 thread": ([program, "restore", "--threads", "1", "--base", "full.zst", "d"], None, None, many),
        "decode: ours, 2 threads": ([program, "restore", "--threads", "2", "--base", "full.zst", "d"], None, None, many),
        "decode: ours, base is a stock zstd": ([program, "restore", "--threads", "1", "--base", "stock.zst", "s"], None, None, many),
    }
    if kind == "vma":
        jobs["diff: ours, nothing changed"] = (ours + ["--threads", "1"], "rerun.vma", "n", many)
    figures = measure(jobs)
    same([program, "restore", "--base", "full.zst", "d"], day)
    same([program, "restore", "--base", "stock.zst", "s"], day)
    run(["zstd", "-q", "-f", "-1", "x2", "-o", "x2.zst"])
    os.replace("x2.zst", "x2")
    reference = figures["diff: xdelta3 -e as the original calls it"][0]
    lines += [f"\n## {kind}: {megabytes(full):.0f} MB, a day later {megabytes(day):.0f} MB\n"]
    lines += ["| what | CPU s | of xdelta3's | wall s | peak MiB | stored MB |", "|---|---|---|---|---|---|"]
    for name, (cpu, wall, peak) in figures.items():
        out = jobs[name][2]
        size = f"{megabytes(out):.2f}" if out else ""
        lines.append(f"| {name} | {cpu:.2f} | {cpu / reference:.4f} | {wall:.1f} | {peak:.0f} | {size} |")

with open(results, "w") as out:
    out.write("# Results of benches/run.sh\n\n")
    out.write(f"{time.strftime('%F')}, {os.cpu_count()} cores, {platform.machine()}. CPU seconds are user + system, medians of {runs} runs ")
    out.write("in turns (xdelta3: one). The machine was shared: wall seconds say little. xdelta3 with -B 2147483648 is stored through zstd -1.\n")
    out.write("\n".join(lines) + "\n")
print(open(results).read())
