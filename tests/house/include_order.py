#!/usr/bin/python3
"""Checks the shape of the tree: who includes whom, who may see Linux, and how long files are.

    include_order.py ROOT      exit 1 and one line a finding when a rule is broken; warnings do not fail

Rules:
 1. base <- checksum <- transport <- dataplane <- control <- apps: a folder includes only what stands left of it.
    tests and bench see all, and nobody includes them.
 2. Linux I/O headers are included in dataplane/ only by linux_* and nbd_* (sockets), and in transport/ only by tls*, socket* (sockets) and
    pki* (key files made with mode 0600).
 3. Quoted includes name the file from the top ("base/error.h"), and the file exists.
 4. A file longer than 500 lines draws a warning.
"""
import pathlib
import re
import sys

ORDER = ["base", "checksum", "transport", "dataplane", "control", "apps"]
SEE_ALL = ["tests", "bench"]
MAX_LINES = 500
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
LINUX_IO = re.compile(r"^(liburing.*|fcntl\.h|linux/.*|sys/(uio|ioctl|stat|statvfs|vfs|statfs|eventfd|epoll|sendfile)\.h)$")
MAY_SEE_LINUX = {"dataplane": ("linux_", "nbd_"), "transport": ("tls", "socket", "pki")}


def sources(root, folder):
    for path in sorted((root / folder).rglob("*")):
        if path.suffix in (".h", ".cpp") and path.is_file():
            yield path


def check(root):
    """Returns (errors, warnings): lists of 'file:line: text'."""
    root = pathlib.Path(root)
    errors, warnings = [], []
    for folder in ORDER + SEE_ALL:
        for path in sources(root, folder):
            name = path.relative_to(root)
            lines = path.read_text(encoding="utf-8").splitlines()
            if len(lines) > MAX_LINES:
                warnings.append(f"{name}: {len(lines)} lines, more than {MAX_LINES}")
            for number, line in enumerate(lines, 1):
                match = INCLUDE.match(line)
                if match:
                    errors += [f"{name}:{number}: {text}" for text in broken_rules(root, folder, path, *match.groups())]
    return errors, warnings


def broken_rules(root, folder, path, bracket, included):
    """The rules that one include directive of one file breaks, each as a sentence."""
    first = included.split("/")[0]
    if folder in ORDER:
        if first in ORDER and "/" in included and ORDER.index(first) > ORDER.index(folder):
            yield f"{folder}/ includes {included}: {first}/ stands right of it"
        if first in SEE_ALL and "/" in included:
            yield f"{folder}/ includes {included}: only tests and benches see {first}/"
        prefixes = MAY_SEE_LINUX.get(folder)
        if prefixes and LINUX_IO.match(included) and not path.name.startswith(prefixes):
            yield f"includes <{included}>: in {folder}/ only {', '.join(prefixes)}* may see Linux I/O headers"
        if bracket == '"' and not (root / included).is_file():
            yield f'includes "{included}": no such file from the top of the tree'


def main():
    errors, warnings = check(sys.argv[1])
    for text in warnings:
        print(f"warning: {text}")
    for text in errors:
        print(f"error: {text}")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
