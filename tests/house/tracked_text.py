#!/usr/bin/python3
"""Checks the text of all tracked files: no path of somebody's machine, no package registry's host, and no dead link
between documents. Run from anywhere in the tree; exit 1 and one line a finding."""
import pathlib
import re
import subprocess
import sys

# In pieces, so that this file does not find itself.
FORBIDDEN = [
    ("a path of one machine", re.compile("/wor" "k/|/tmp/" r"w\b|/roo" r"t/|/hom" r"e/[a-z]")),
    ("a registry's host", re.compile(r"\b(deb\.debian|security\.debian|pypi|registry\.npmjs|crates|proxy\.golang|pythonhosted|"
                                     r"archive\.ubuntu|docker|ghcr|quay)\.(org|io|com)\b")),
]
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(#[^)]*)?\)")


def findings(root, names):
    for name in names:
        path = root / name
        try:
            text = path.read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
            continue
        for number, line in enumerate(text.splitlines(), 1):
            for what, pattern in FORBIDDEN:
                if pattern.search(line) and path.name != pathlib.Path(__file__).name:
                    yield f"{name}:{number}: {what}: {line.strip()[:100]}"
            if path.suffix == ".md":
                for target, _ in LINK.findall(line):
                    if "://" not in target and not (path.parent / target).exists():
                        yield f"{name}:{number}: the link {target} leads nowhere"


def main():
    root = pathlib.Path(subprocess.check_output(["git", "rev-parse", "--show-toplevel"], text=True).strip())
    names = subprocess.check_output(["git", "ls-files"], text=True, cwd=root).splitlines()
    found = list(findings(root, names))
    for text in found:
        print(text)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
