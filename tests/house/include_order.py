#!/usr/bin/python3
"""Checks the shape of the tree: who includes whom, who may see Linux, how large rooms and files are.

    include_order.py ROOT      exit 1 and one line a finding when a rule is broken

Rules:
 1. base <- checksum <- transport <- dataplane <- control <- apps: a folder includes only what stands left of it.
    tests and bench see all, and nobody includes them.
 2. Inside a folder a room includes only the rooms before it (ROOMS), and source/ and target/ never each other.
    A folder with rooms has no file outside of them, a folder without is one room. A room has at most 30 sources and headers;
    the rooms of a folder have a README each.
 3. Linux I/O headers are included in dataplane/ only by linux/ and nbd/ (sockets), and in transport/ only by tls/tls*, tls/socket* (sockets)
    and pki/ (key files made with mode 0600).
 4. Quoted includes name the file from the top ("base/error.h", without dots), and the file exists.
 5. A source file, C++ or Python, has fewer than 450 lines, wherever it stands. C++ ends in .h or .cpp and stands in a folder that is known here.
"""
import collections
import pathlib
import re
import sys

ORDER = ["base", "checksum", "transport", "dataplane", "control", "apps"]
SEE_ALL = ["tests", "bench"]
SKIPPED = ("build", ".git")  # nobody wrote what is in them
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


CPP = (".h", ".cpp")
OTHER_CPP = (".hpp", ".hh", ".hxx", ".inl", ".ipp", ".cc", ".cxx", ".c")


def sources(root):
    """C++ and Python files of the tree, each with its top folder ("" for the root itself)."""
    for top in sorted(root.iterdir()):
        if top.name.startswith(SKIPPED):
            continue
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.suffix in (*CPP, *OTHER_CPP, ".py") and path.is_file():
                yield top.name if top.is_dir() else "", path


def room_of(folder, inside):
    """The room of a path below its folder; None outside of all rooms."""
    room = inside.parent.as_posix()
    return room if room in ROOMS.get(folder, []) else None


def check(root):
    """Returns a list of 'file:line: text'."""
    root = pathlib.Path(root)
    errors = []
    sizes = collections.Counter()
    for folder, path in sources(root):
        name = path.relative_to(root)
        lines = path.read_text(encoding="utf-8").splitlines()
        if len(lines) >= MAX_LINES:
            errors.append(f"{name}: {len(lines)} lines; fewer than {MAX_LINES} are allowed")
        if path.suffix == ".py":
            continue
        if path.suffix not in CPP:
            errors.append(f"{name}: C++ ends in .h or .cpp")
        if folder not in ORDER + SEE_ALL:
            errors.append(f"{name}: C++ stands in {', '.join(ORDER + SEE_ALL)}")
        if folder in ORDER:
            room = room_of(folder, path.relative_to(root / folder))
            sizes[folder, room] += 1
            if room is None and folder in ROOMS:
                errors.append(f"{name}: stands in no room of {folder}/")
        for number, line in enumerate(lines, 1):
            match = INCLUDE.match(line)
            if match:
                errors += [f"{name}:{number}: {text}" for text in broken_rules(root, folder, path, *match.groups())]
    for (folder, room), count in sizes.items():
        if room is None and folder in ROOMS:
            continue  # each of them is named already
        place = f"{folder}/{room}" if room else folder
        if count > MAX_FILES:
            errors.append(f"{place}: {count} sources and headers, more than {MAX_FILES}")
        if room and not (root / folder / room / "README.md").is_file():
            errors.append(f"{place}: no README.md")
    return errors


def broken_rules(root, folder, path, bracket, included):
    """The rules that one include directive of one file breaks, each as a sentence."""
    first = included.split("/")[0]
    if bracket == '"' and {"", ".", ".."} & set(included.split("/")):
        yield f'includes "{included}": a file is named from the top, without dots'
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
