"""The example's README, followed literally: every command of its ```sh blocks runs, in order, in one shell, in a copy of the folder."""
import re
import shutil

import harness
from shell import Shell, blocks_of

EXAMPLE = harness.ROOT / "examples" / "files"


def test_the_readme_of_the_example_can_be_followed_literally(folder):
    work = folder / "files"
    shutil.copytree(EXAMPLE, work)
    blocks = blocks_of(work / "README.md")
    assert len(blocks) >= 5
    with Shell(work) as shell:
        for block in blocks:
            shell.paste(block)
    output = shell.output()
    for expected in ("web01 added", "passed", "waits for Complete Failover", "PlanPlannedFailover shop: Succeeded"):
        assert expected in output, f"no '{expected}' in\n{output}"
    # What the reader is told has happened has happened.
    for vm in ("web01", "db01"):
        assert (work / "primary" / "vms" / vm / "state").read_text().strip() == "running"
        assert not (work / "recovery" / "vms" / vm / "state").exists()
    assert b"written at the recovery site" in (work / "primary" / "disks" / "web01-os.img").read_bytes()


def test_nothing_in_the_example_is_absolute():
    for path in EXAMPLE.iterdir():
        text = path.read_text()
        found = re.findall(r"(?<![\w.:/])/(?!usr/bin/env|bin/true|dev/u?random|VM|\s)[A-Za-z][\w/]*", text) if path.suffix in (".toml", ".md") else []
        assert not found, f"{path.name}: {found}"
