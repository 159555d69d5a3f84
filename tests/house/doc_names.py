#!/usr/bin/python3
"""Checks that the files and names which documents and comments mention are in the tree.

    doc_names.py ROOT      exit 1 and one line a finding

In *.md, of what stands in `backticks` outside of code blocks:
 1. A path (a name with a source's ending, or one that begins with a folder of the tree) is a file or folder: by its whole path, from the
    document's own folder, or by its end. A `*`, NAME, FILE or FOLDER stands for anything.
 2. Class::member stands in that class, module.error in a table of errors; and each word of function(), CamelCase, camelCase, snake_case,
    BACKHAUL_VARIABLE and --option stands in a source outside of C++ comments. FOREIGN are the names of others.
 3. No file is named with a line's number, which is wrong after the next change.
In comments of C++ and Python, the files they name exist (1 and 3).
"""
import fnmatch
import pathlib
import re
import sys

FOLDERS = ["base", "checksum", "transport", "dataplane", "control", "apps", "packaging", "tests", "bench", "docs", "examples"]
PRODUCT = FOLDERS[:6]
SOURCES = {".cpp", ".h", ".py", ".mjs"}
TEXTS = SOURCES | {".txt", ".toml", ".json", ".service", ".conf", ""}
# Of the kernel, of TLS, of other programs: they need not stand in a source of ours.
FOREIGN = {"no_application_protocol", "persistent"}

TICKED = re.compile(r"`([^`\n]+)`")
FILE = re.compile(r"(?<![\w./<-])((?:[\w*.-]+/)*[\w*-][\w*.-]*\.(?:cpp|h|py|mjs|md))(:\d+)?(?![\w/>])")
PATH = re.compile(r"[\w.*-]+(?:/[\w.*-]+)*/?")
WORD = re.compile(r"[A-Za-z_]\w*")
MEMBER = re.compile(r"(\w+)::~?(\w+)(?:\(.*\))?")
ERROR = re.compile(r"([a-z]+)\.[a-z_]+")
CLASS = re.compile(r"(?ms)^( *)(?:class|struct|enum class|enum|namespace) (\w+)\b[^;{}]*\{(.*?)^\1\}")
STAND_IN = re.compile(r"\b(?:NAME|FILE|FOLDER)(?=\b|_)")  # in a path: anything
NAME = re.compile(r"\w+\((?:\w|, )*\)|[A-Z][a-z0-9]+(?:[A-Z][a-z0-9]*)+|[a-z][a-z0-9]*(?:[A-Z][a-z0-9]*)+|[a-z][a-z0-9]*(?:_[a-z0-9]+)+_?"
                  r"|BACKHAUL_[A-Z_]+|--[a-z][a-z-]+")
COMMENT = {".py": re.compile(r"(?:^|\s)#(.*)"), ".cpp": re.compile(r"(?<![:\"'])//(.*)"), ".h": re.compile(r"(?<![:\"'])//(.*)")}


class Tree:
    """What there is: paths, the words of the sources, the members of classes, the errors."""

    def __init__(self, root):
        self.root = pathlib.Path(root)
        files = [path for folder in FOLDERS for path in (self.root / folder).rglob("*")] + list(self.root.iterdir())
        self.files = sorted(path for path in files if path.is_file() and "__pycache__" not in path.parts)
        self.paths = {str(part) for path in self.files for part in (path.relative_to(root), *path.relative_to(root).parents)}
        self.words, self.members, self.errors = set(), set(), set()
        for path in self.files:
            if path.suffix not in TEXTS or path.parent.name == "house":
                continue
            text = read(path)
            if path.suffix in (".cpp", ".h"):
                text = "\n".join(COMMENT[".cpp"].sub("", line) for line in text.splitlines())
                self.members.update(re.findall(r"\b(\w+)::~?(\w+)", text))
                self.members.update((name, word) for _, name, body in CLASS.findall(text) for word in WORD.findall(body))
                if path.relative_to(root).parts[0] in PRODUCT:
                    self.errors.update(re.findall(r'\{"([a-z]+\.[a-z_]+)",\s*"[^"]* ', text))
            self.words.update(word.casefold() for word in WORD.findall(text))
        self.words.update(f"unit_{folder}" for folder in PRODUCT)  # programs, whose names CMake puts together
        self.modules = {error.split(".")[0] for error in self.errors}

    def has_path(self, name, near=""):
        """`near`: the folder of who names it."""
        name = STAND_IN.sub("*", name.rstrip("/"))
        if "*" in name:
            return any(fnmatch.fnmatchcase(path, wanted) for path in self.paths for wanted in (name, f"*/{name}"))
        return name in self.paths or f"{near}/{name}" in self.paths or any(path.endswith("/" + name) for path in self.paths)

    def has_words(self, name):
        return all(word.casefold() in self.words or word in FOREIGN for word in WORD.findall(name))


def read(path):
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def wrong_files(tree, text, near):
    for name, line in FILE.findall(text):
        if line:
            yield f"{name}{line}: a line's number is wrong after the next change"
        if not tree.has_path(name, near):
            yield f"{name} is no file"


def wrong_names(tree, ticked, near):
    if PATH.fullmatch(ticked) and "/" in ticked and ticked.split("/")[0] in FOLDERS:
        if not tree.has_path(ticked, near):
            yield f"{ticked} is no file or folder"
        return
    yield from wrong_files(tree, ticked, near)
    member, error = MEMBER.fullmatch(ticked), ERROR.fullmatch(ticked)
    if member and member.groups() not in tree.members:
        yield f"{member[1]} has no {member[2]}"
    if error and error[1] in tree.modules and ticked not in tree.errors and not FILE.fullmatch(ticked):
        yield f"{ticked} is no error"
    for name in ticked.split() if "--" in ticked else [ticked]:
        if NAME.fullmatch(name) and not tree.has_words(name):
            yield f"{name} is in no source"


def check_document(tree, path, near):
    fenced = False
    for number, line in enumerate(read(path).splitlines(), 1):
        fenced ^= line.startswith("```")
        for ticked in [] if fenced else TICKED.findall(line):
            for text in wrong_names(tree, ticked, near):
                yield number, text


def check_comments(tree, path, near):
    for number, line in enumerate(read(path).splitlines(), 1):
        comment = COMMENT[path.suffix].search(line)
        for text in wrong_files(tree, comment[1], near) if comment else []:
            yield number, text


def check(root):
    """Returns the findings: 'file:line: text'."""
    tree, found = Tree(root), []
    for path in tree.files:
        name = path.relative_to(root)
        checker = check_document if path.suffix == ".md" else check_comments if path.suffix in COMMENT and path.parent.name != "house" else None
        if checker:
            found += [f"{name}:{number}: {text}" for number, text in checker(tree, path, str(name.parent))]
    return found


def main():
    found = check(pathlib.Path(sys.argv[1]))
    for text in found:
        print(text)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
