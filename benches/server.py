"""server.py full|day FOLDER MEGABYTES: fills a folder as a mail and file server has it, or lets a day pass; see server.sh."""
import base64, os, random, shutil, sys

day, folder, size = sys.argv[1] == "day", sys.argv[2], int(sys.argv[3]) * 1_000_000
random.seed(28 if day else 27)


def files(*folders):
    found = sorted(os.path.join(at, name) for top in folders for at, _, names in os.walk(top) for name in names)
    return [path for path in found if os.path.isfile(path) and not os.path.islink(path)]


texts = [path for path in files("/usr/share/doc", "/usr/share/perl") if 500 < os.path.getsize(path) < 100_000]
things = [path for path in files("/usr/share", "/usr/lib") if 3000 < os.path.getsize(path) < 600_000]


def mail(n):
    """A mail: headers that are new in each, real text, and now and then a real file."""
    sender, at = random.randrange(400), random.getrandbits(60)
    head = "".join(
        f"Received: from mx{hop}.example.org ([192.0.2.{random.randrange(256)}]) by mail{hop}.example.org with ESMTPS id {at:x}{hop};\r\n"
        f"\tMon, 30 Nov 2026 {n % 24:02}:{n % 60:02}:{hop:02} +0000\r\n"
        for hop in range(3)
    )
    head += f"Message-ID: <{at:x}.{n}@example.org>\r\nFrom: user{sender}@example.org\r\nTo: user{n % 50}@example.net\r\nSubject: Report {n}\r\n\r\n"
    text = open(random.choice(texts), "rb").read()
    first = random.randrange(max(1, len(text) - 6000))
    body = text[first : first + random.choice([300, 1500, 6000])].replace(b"\n", b"\r\n")
    if random.random() < 0.12:
        body += b"\r\n--next\r\n\r\n" + base64.encodebytes(open(random.choice(things), "rb").read())
    return head.encode() + body


def deliver(n):
    place = os.path.join(folder, "vmail", f"user{n % 50}", "new")
    os.makedirs(place, exist_ok=True)
    with open(os.path.join(place, f"{n:07}.M{random.randrange(10**6)}.mail"), "wb") as out:
        out.write(mail(n))
        return out.tell()


def share(n):
    source = random.choice(things)
    place = os.path.join(folder, "shares", f"group{n % 30}", os.path.basename(os.path.dirname(source)))
    os.makedirs(place, exist_ok=True)
    shutil.copyfile(source, os.path.join(place, f"{n} {os.path.basename(source)}"))
    return os.path.getsize(source)


if not day:
    n = done = 0
    while done < size // 2:
        done, n = done + deliver(n), n + 1
    while done < size:
        done, n = done + share(n), n + 1
else:
    mails, shares = files(os.path.join(folder, "vmail")), files(os.path.join(folder, "shares"))
    for path in random.sample(mails, len(mails) // 20):  # read: a flag in the name, another folder
        place = os.path.dirname(path).removesuffix("new") + "cur"
        os.makedirs(place, exist_ok=True)
        os.rename(path, os.path.join(place, os.path.basename(path) + ":2,S"))
    left = files(os.path.join(folder, "vmail"))
    for path in random.sample(left, len(left) // 50):
        os.remove(path)
    for n in range(len(mails) // 40):
        deliver(10**6 + n)
    for path in random.sample(shares, len(shares) // 40):  # edited: some bytes put in, in a file written anew
        content = bytearray(open(path, "rb").read())
        at = random.randrange(len(content))
        content[at:at] = b"edited " * random.randrange(1, 40)
        os.remove(path)
        with open(path, "wb") as out:
            out.write(content)
    for path in random.sample(shares, len(shares) // 100):  # moved to another folder
        place = os.path.join(folder, "shares", "archive", os.path.basename(os.path.dirname(path)))
        os.makedirs(place, exist_ok=True)
        os.rename(path, os.path.join(place, os.path.basename(path)))
    for n in range(len(shares) // 60):
        share(10**6 + n)
