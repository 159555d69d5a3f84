"""What every refused command owes its user, and what it must have left alone."""
import hashlib
import os
import pathlib
import stat

import harness
import pytest


def expect_error(done, code, exit_code=1):
    """Checks a finished command (run with --json) that had to fail. Returns the error object."""
    assert done.returncode == exit_code, f"exit {done.returncode}, not {exit_code}\n{done.stdout}{done.stderr}"
    found = harness.last_json(done.stdout)
    assert found is not None and "error" in found, f"no JSON error: {done.stdout!r} {done.stderr!r}"
    error = found["error"]
    codes = (code,) if isinstance(code, str) else code
    assert error["code"] in codes, error
    for part in ("message", "cause", "fix"):
        assert error[part].strip(), error
    assert error["code"] in done.stderr and error["fix"] in done.stderr, done.stderr
    return error


def refused(host, pki, source, disk, code, exit_code=1, timeout=120, **options):
    """A send that must fail with this code."""
    words = harness.send_words(source, host.url(disk), pki, options)
    return expect_error(harness.run(*words, "--json", check=False, timeout=timeout), code, exit_code)


def tree(*folders):
    """Everything below the folders: kinds, links and contents. Two equal trees: nothing was touched that matters."""
    found = {}
    for folder in folders:
        for path in sorted(pathlib.Path(folder).rglob("*")):
            facts = os.lstat(path)
            what = (stat.S_IFMT(facts.st_mode), facts.st_size if stat.S_ISREG(facts.st_mode) else 0)
            if stat.S_ISLNK(facts.st_mode):
                what += (os.readlink(path),)
            elif stat.S_ISREG(facts.st_mode):
                what += (hashlib.sha256(path.read_bytes()).hexdigest(),)
            found[str(path)] = what
    return found


def expect_good_send(host, pki, source, disk, **options):
    """The later run that must succeed; source and target are raw."""
    result = harness.send(host, pki, source, disk, **options)
    assert result["root_digest_source"] == result["root_digest_target"]
    return result


def need(*programs):
    """Skips where the machine cannot do what the test needs, and says which program is missing."""
    for name in programs:
        if harness.run("sh", "-c", f"command -v {name}", check=False).returncode != 0:
            pytest.skip(f"{name} is not installed")
