"""The command line: help, usage errors, certificates, the host agent's configuration."""
import subprocess

import harness
import pytest
from harness import MIB
from refusal import tree


def test_pki_issue_and_show(pki, folder, store):
    lab = folder / "lab"
    harness.run(harness.program(), "pki", "init", lab)
    harness.run(harness.program(), "pki", "issue", lab, "third", "--alt-name", "third.example", "--alt-name", "127.0.0.1",
                "--days", "30")
    shown = harness.backhaul("pki", "show", lab / "third")["certificates"]
    node = next(entry for entry in shown if entry["path"].endswith("node.crt"))
    assert {"third.example", "127.0.0.1"} <= set(node["alt_names"]) and 28 <= node["days_left"] <= 30 and not node["is_ca"]
    assert "third" in node["subject"] and len(node["fingerprint_sha256"].replace(":", "")) == 64
    assert len(harness.backhaul("pki", "show", lab)["certificates"]) >= 4
    source = harness.make_image(folder / "source.raw", MIB, "mixed")
    with harness.Host(store, harness.Pki(lab)) as host:
        harness.send(host, harness.Pki(lab), source, "disk", tls=lab / "third")
    for words, code in ((["pki", "init", lab], None), (["pki", "issue", lab, "third"], None),
                        (["pki", "show", folder / "none"], None), (["pki", "issue", folder / "none", "x"], None),
                        (["pki", "issue", lab, "../x"], None)):
        done = harness.run(harness.program(), *words, "--json", check=False)
        error = harness.last_json(done.stdout)["error"]
        assert done.returncode in (1, 2) and error["code"] and error["cause"] and error["fix"], error
    assert not (folder / "x").exists()
    assert (lab / "third" / "node.crt").exists()


COMMANDS = [[], ["send"], ["cancel"], ["host"], ["digest"], ["pki"], ["pki", "init"], ["pki", "issue"], ["pki", "show"]]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_is_there(command):
    done = harness.run(harness.program(), *command, "--help")
    assert len(done.stdout) > 100 and "--help" in done.stdout and not done.stderr


@pytest.mark.parametrize("words", [[], ["fly"], ["send"], ["send", "a"], ["send", "a", "backhaul://h:1/d", "--lane", "2"],
                                   ["pki"], ["digest"], ["host", "--port", "1"], ["cancel"], ["pki", "issue", "d", "n", "--days", "0"]],
                         ids=" ".join)
def test_a_wrong_command_line_is_a_usage_error(words):
    done = harness.run(harness.program(), *words, check=False)
    assert done.returncode == 2 and done.stderr.strip() and not done.stdout


@pytest.mark.parametrize("option,value", [("lanes", "0"), ("lanes", "17"), ("lanes", "x"), ("sync", "some"), ("verify", "all"),
                                          ("compress", "gzip"), ("compare-by", "md5"), ("staging", "copy"), ("format", "qcow2"), ("limit", "fast"),
                                          ("limit", "-1"), ("limit", "99999999999999999999"), ("lanes", "-1")])
def test_a_wrong_value_is_a_usage_error_that_names_it(host, pki, folder, option, value):
    source = harness.make_image(folder / "source.raw", MIB, "mixed")
    words = harness.send_words(source, host.url("disk"), pki, {option: value})
    done = harness.run(*words, "--json", check=False)
    assert done.returncode == 2, done
    assert option in done.stderr and value in done.stderr, done.stderr
    assert tree(host.store) == {}


CONFIGS = [
    ("listen = 5\n", 1, "listen"),
    ("store = \"s\"\nlisten = \"nowhere\"\n", None, "nowhere"),
    ("store = \"s\"\nstorage = \"x\"\n", 2, "storage"),
    ("# comment\n\nstore = \"s\"\ntls = [\"a\"]\n", 4, "tls"),
    ("store = \"s\nlisten = 1\n", 1, ""),
    ("store = \"s\"\nstore = \"t\"\n", 2, "store"),
    ("[host]\nstore = \"s\"\n", 1, "host"),
]


@pytest.mark.parametrize("text,line,key", CONFIGS, ids=[repr(text) for text, _, _ in CONFIGS])
def test_a_mistake_in_the_configuration_is_named_with_its_line(folder, pki, text, line, key):
    path = folder / "host.toml"
    path.write_text(text)
    done = harness.run(harness.program(), "host", "--config", path, "--tls", pki.host, check=False, timeout=30)
    assert done.returncode == 2, done
    assert key in done.stderr and (line is None or f"host.toml:{line}:" in done.stderr), done.stderr


def test_a_configuration_that_is_right(folder, pki, store):
    path = folder / "host.toml"
    path.write_text(f'listen = "127.0.0.1:0"\nstore = "{store}"\ntls = "{pki.host}"\n')
    with subprocess.Popen([harness.program(), "host", "--config", str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().startswith("listening on 127.0.0.1:")
        process.terminate()
        assert process.wait(20) == 0


@pytest.mark.parametrize("words,code", [(["--store", "none"], "io.not_found"), (["--listen", "127.0.0.1:99999"], "base.invalid_argument"),
                                        (["--listen", "192.0.2.1:0"], None), (["--config", "none.toml"], None), ([], "base.invalid_argument")],
                         ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_a_host_agent_that_cannot_start_says_why(folder, pki, words, code):
    store = [] if "--store" in words or not words else ["--store", str(folder)]
    done = harness.run(harness.program(), "host", "--tls", pki.host, *store, *words, check=False, timeout=30, cwd=folder)
    assert done.returncode in (1, 2) and "fix:" in done.stderr, done
    assert code is None or code in done.stderr


def test_a_port_that_is_taken_is_named(host, pki, folder):
    done = harness.run(harness.program(), "host", "--tls", pki.host, "--store", folder, "--listen", f"127.0.0.1:{host.port}",
                       check=False, timeout=30)
    assert done.returncode == 1 and "link.address_in_use" in done.stderr and str(host.port) in done.stderr
