#!/usr/bin/python3
"""Checks the shape of the tree: who includes whom, who may see Linux, how large rooms and files are.

    include_order.py ROOT      exit 1 and one line a finding when a rule is broken

Rules:
 1. base <- checksum <- transport <- dataplane <- control <- apps: a folder includes only what stands left of it.
    tests and bench see all, and nobody includes them.
 2. Inside a folder a room includes only the rooms before it (ROOMS), and source/ and target/ never each other.
    A folder with rooms has no file outside of them; a room has at most 30 sources and headers, and a README.
 3. Linux I/O headers are included in dataplane/ only by linux/ and nbd/ (sockets), and in transport/ only by tls/tls*, tls/socket* (sockets)
    and pki/ (key files made with mode 0600).
 4. Quoted includes name the file from the top ("base/error.h"), and the file exists.
 5. A source file has fewer than 450 lines: C++ and Python, of the program, its tests and its benches.
"""
import pathlib
import re
import sys

ORDER = ["base", "checksum", "transport", "dataplane", "control", "apps"]
SEE_ALL = ["tests", "bench"]
# In the order in which they may include each other.
ROOMS = {
    "transport": ["stream", "tls", "frames", "pki"],
    "dataplane": ["disk", "protocol", "linux", "nbd", "store", "scan", "target", "source"],
    "control": ["model", "store", "http", "drivers", "drivers/qemu", "jobs", "api", "agents"],
}
STRANGERS = {("dataplane", "source", "target")}  # although the order would allow it
MAX_FILES = 30
MAX_LINES = 450
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
LINUX_IO = re.compile(r"^(liburing.*|fcntl\.h|linux/.*|sys/(uio|ioctl|stat|statvfs|vfs|statfs|eventfd|epoll|sendfile)\.h)$")
MAY_SEE_LINUX = {"dataplane": ("linux/", "nbd/"), "transport": ("tls/tls", "tls/socket", "pki/")}


def sources(root, folder):
    for path in sorted((root / folder).rglob("*")):
        if path.suffix in (".h", ".cpp", ".py") and path.is_file():
            yield path


def room_of(folder, inside):
    """The room of a path below its folder; None outside of all rooms."""
    room = inside.parent.as_posix()
    return room if room in ROOMS.get(folder, []) else None


def check(root):
    """Returns a list of 'file:line: text'."""
    root = pathlib.Path(root)
    errors = []
    for folder in ORDER + SEE_ALL:
        sizes = {}
        for path in sources(root, folder):
            name = path.relative_to(root)
            lines = path.read_text(encoding="utf-8").splitlines()
            if len(lines) >= MAX_LINES:
                errors.append(f"{name}: {len(lines)} lines; fewer than {MAX_LINES} are allowed")
            if path.suffix == ".py":
                continue
            if folder in ROOMS:
                room = room_of(folder, path.relative_to(root / folder))
                sizes[room] = sizes.get(room, 0) + 1
                if room is None:
                    errors.append(f"{name}: stands in no room of {folder}/")
            for number, line in enumerate(lines, 1):
                match = INCLUDE.match(line)
                if match:
                    errors += [f"{name}:{number}: {text}" for text in broken_rules(root, folder, path, *match.groups())]
        for room, count in sizes.items():
            if room is None:
                continue
            if count > MAX_FILES:
                errors.append(f"{folder}/{room}: {count} sources and headers, more than {MAX_FILES}")
            if not (root / folder / room / "README.md").is_file():
                errors.append(f"{folder}/{room}: no README.md")
    return errors


def broken_rules(root, folder, path, bracket, included):
    """The rules that one include directive of one file breaks, each as a sentence."""
    first = included.split("/")[0]
    if folder in ORDER:
        if first in ORDER and "/" in included and ORDER.index(first) > ORDER.index(folder):
            yield f"{folder}/ includes {included}: {first}/ stands right of it"
        if first in SEE_ALL and "/" in included:
            yield f"{folder}/ includes {included}: only tests and benches see {first}/"
        if first == folder:
            yield from broken_room_rules(folder, path.relative_to(root / folder), included)
        prefixes = MAY_SEE_LINUX.get(folder)
        inside = path.relative_to(root / folder).as_posix()
        if prefixes and LINUX_IO.match(included) and not inside.startswith(prefixes):
            yield f"includes <{included}>: in {folder}/ only {', '.join(prefixes)}* may see Linux I/O headers"
        if bracket == '"' and not (root / included).is_file():
            yield f'includes "{included}": no such file from the top of the tree'


def broken_room_rules(folder, inside, included):
    ours = room_of(folder, inside)
    theirs = room_of(folder, pathlib.PurePosixPath(included).relative_to(folder))
    if ours is None or theirs is None or ours == theirs:
        return
    if (folder, ours, theirs) in STRANGERS:
        yield f"{folder}/{ours} includes {included}: {ours}/ and {theirs}/ never see each other"
    elif ROOMS[folder].index(theirs) > ROOMS[folder].index(ours):
        yield f"{folder}/{ours} includes {included}: {folder}/{theirs} stands right of it"


def main():
    errors = check(sys.argv[1])
    for text in errors:
        print(f"error: {text}")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
