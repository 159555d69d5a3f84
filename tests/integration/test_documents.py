"""Commands that documents tell a reader to type, typed."""
import re

import harness
from shell import Shell, blocks_of


def test_the_quick_tour_of_the_readme(folder):
    blocks = blocks_of(harness.ROOT / "README.md")
    assert len(blocks) == 2
    with Shell(folder) as shell:
        for block in blocks:
            shell.paste(block)
    output = shell.output()
    for expected in ("root digest target", "there was no unfinished transfer"):
        assert expected in output, f"no '{expected}' in\n{output}"
    harness.qemu_compare(folder / "web.raw", "raw", folder / "disks" / "web.vhdx", "vhdx")
    one, other = (harness.run(harness.program(), "digest", folder / disk).stdout for disk in ("web.raw", "disks/web.vhdx"))
    assert one == other and output.count(one.strip()) >= 4, "the send's two, and those that the reader asked for"


def test_the_certificates_of_the_operations_guide(folder, store):
    text = (harness.ROOT / "docs" / "OPERATIONS.md").read_text()
    commands = re.findall(r"^    (backhaul pki .*?)(?:  .*)?$", text, re.MULTILINE)
    assert [command.split()[2] for command in commands] == ["init", "issue", "show"]
    with Shell(folder) as shell:
        for command in commands:
            shell.paste(command)
    lab = folder / "lab"
    for node in ("host", "appliance", "NAME"):
        assert {path.name for path in (lab / node).iterdir()} == {"ca.crt", "node.crt", "node.key"}
    shown = harness.backhaul("pki", "show", lab / "NAME")["certificates"]
    assert ["NAME"] in [certificate["alt_names"] for certificate in shown]
    source = harness.make_image(folder / "source.raw", harness.MIB, "mixed")
    with harness.Host(store, harness.Pki(lab)) as host:
        harness.send(host, harness.Pki(lab), source, "disk", tls=lab / "NAME")
