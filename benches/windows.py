"""windows.py full|day C D PROGRAMS UPGRADED: fills the disks mounted at C and D, or lets a day pass; see windows.sh."""
import os, random, shutil, sys, zlib

day = sys.argv[1] == "day"
c, d, programs, upgraded = sys.argv[2:6]
random.seed(18 if day else 17)


def files(folder):
    found = sorted(os.path.join(at, name) for at, _, names in os.walk(folder) for name in names)
    return [path for path in found if os.path.isfile(path) and not os.path.islink(path)]


def installed(source, to):
    """Copies files of packages, as an installer would: no links, no odd names."""
    for path in files(source):
        place = os.path.join(to, os.path.relpath(path, source).replace(":", "_"))
        os.makedirs(os.path.dirname(place), exist_ok=True)
        if not os.path.exists(place) or open(place, "rb").read() != open(path, "rb").read():
            shutil.copyfile(path, place)


def document(n):
    """Text that hardly compresses further, as in a zipped office file: real text, packed."""
    text = open(texts[n % len(texts)], "rb").read()[:200_000]
    return b"PK\x03\x04" + zlib.compress(b"%d " % n + text, 6)


texts = [path for path in files("/usr/share/doc") + files("/usr/share/perl") if os.path.getsize(path) > 2000]
registry, pagefile, log = (os.path.join(c, name) for name in ("registry", "pagefile.sys", "log.txt"))
size = os.statvfs(d).f_frsize * os.statvfs(d).f_blocks
if not day:
    installed(programs, os.path.join(c, "programs"))
    with open(registry, "wb") as out:  # cells with names and numbers
        for n in range(size // 10_000):
            out.write(b"nk\x20\x00%08x" % n + b"Software\\Classes\\Interface\\{%016x}" % random.getrandbits(64) + bytes(60 + n % 90))
    with open(pagefile, "wb") as out:
        blocks = open(max(files(programs), key=os.path.getsize), "rb").read(32 << 20)
        for n in range(size // 16 // 4096):
            out.write(blocks[(n * 7919 * 4096) % (len(blocks) - 4096) :][:4096] if n % 3 else bytes(4096))
    os.makedirs(os.path.join(d, "documents"))
    for n in range(size * 2 // 5 // 40_000):
        with open(os.path.join(d, "documents", f"{n}.docx"), "wb") as out:
            out.write(document(n))
    with open(log, "w") as out:
        out.writelines(f"{n} 2026-11-29 Information Service-Control-Manager 7036 {n * 31 % 997}\n" for n in range(size // 4000))
else:
    installed(upgraded, os.path.join(c, "programs"))
    for path in (registry, pagefile):
        with open(path, "r+b") as out:
            length = os.path.getsize(path)
            for _ in range(length // 100_000):
                out.seek(random.randrange(length // 4096) * 4096 + random.randrange(4000))
                out.write(random.randbytes(random.choice([4, 16, 90])))
            if path == pagefile:
                for _ in range(length // 4096 // 20):
                    out.seek(random.randrange(length // 4096) * 4096)
                    out.write(random.randbytes(1024) + bytes(3072))
    had = files(os.path.join(d, "documents"))
    for path in random.sample(had, len(had) // 50):  # saved again: another file, in another place of the disk
        os.remove(path)
        with open(path, "wb") as out:
            out.write(document(random.randrange(1 << 20)))
    for n in range(len(had) // 100):
        with open(os.path.join(d, "documents", f"new {n}.docx"), "wb") as out:
            out.write(document(random.randrange(1 << 20)))
    with open(log, "a") as out:
        out.writelines(f"{n} 2026-11-30 Information Service-Control-Manager 7036 {n * 37 % 991}\n" for n in range(size // 40_000))
