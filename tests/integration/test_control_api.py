"""The appliance without a transfer: its configuration and its first start, who may do what, what is refused and how (right status, ARM
error, nothing changed), and the command line over it."""
import json
import os
import socket
import stat
import subprocess
import time

import pytest

import harness
import sites as sites_module
from sites import ARM, Api, Refused, Sites

EXAMPLE = harness.ROOT / "examples" / "files"
ITEM = "/replicationProtectedItems/web01"


@pytest.fixture(scope="module")
def sites(pki, tmp_path_factory):
    """One appliance for all tests of this file; each leaves the items as it found them."""
    with Sites(tmp_path_factory.mktemp("sites"), pki, limits={"request_s": 1, "request_bytes": 65536}) as both:
        both.declare("web01")
        for role in ("Reader", "Operator"):
            found = both.api.call("PUT", f"/tokens/{role.lower()}", {"properties": {"role": role}})[2]
            setattr(both, role.lower(), Api(both.appliance, pki.directory / "ca.crt", found["properties"]["secret"]))
        yield both


def snapshot(sites):
    """All that a refused request must leave alone."""
    return [sites.api.list(path) for path in ("/replicationProtectedItems", "/replicationJobs", "/replicationRecoveryPlans", "/tokens")]


def expect_arm_error(status, body, code=None):
    error = body["error"]
    assert error["code"] and error["message"] and error["innererror"]["recommendedAction"], (status, body)
    if code is not None:
        assert error["code"] == code, body
    return error


# The daemon -------------------------------------------------------------------------------------------------------------

def test_the_first_start_leaves_one_admin_token_that_only_its_owner_can_read(folder, pki):
    with Sites(folder, pki) as sites:
        token = sites.folder / "state" / "admin.token"
        assert stat.S_IMODE(token.stat().st_mode) == 0o600 and stat.S_IMODE(token.parent.stat().st_mode) == 0o700
        secret = token.read_text().strip()
        assert secret.split("_")[2] not in (sites.folder / "state" / "jobs.db").read_bytes().decode("latin-1"), "only its hash is stored"
        assert secret not in sites.appliance.log()
        token.unlink()
        assert sites.appliance.stop() == 0
        sites.appliance.start()
        assert not token.exists(), "once is once"
        assert sites.api.get("/tokens")["value"][0]["name"] == "admin", "the token is still good"


def test_two_appliances_do_not_share_a_state_directory(sites):
    second = sites.folder / "second.toml"
    second.write_text(sites.appliance_config(sites.folder / "state"))
    done = harness.run(harness.program(), "appliance", "--config", second, check=False, timeout=30)
    assert done.returncode == 2 and "state directory of an appliance that runs" in done.stderr, done


def test_every_mistake_of_the_configuration_is_named_with_line_and_key(folder):
    path = folder / "appliance.toml"
    path.write_text('listen = "x"\nstate = "s"\n[[hosts]]\nid = "h"\n[pace]\nlook = 5\n')
    done = harness.run(harness.program(), "appliance", "--config", path, check=False, timeout=30)
    assert done.returncode == 2, done
    for expected in ("appliance.toml:1: listen", "tls: is missing", "store: is missing", "hosts[0].address: is missing",
                     "appliance.toml:6: pace.look: is no known key; known are attempts, delta_bytes"):
        assert expected in done.stderr, done.stderr


def test_the_api_needs_tls_and_asks_for_no_certificate(sites):
    with socket.create_connection(("127.0.0.1", sites.appliance.port), 10) as plain:
        plain.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        plain.settimeout(10)
        try:
            assert b"200" not in plain.recv(100)
        except ConnectionResetError:
            pass
    assert Api(sites.appliance, sites.pki.directory / "ca.crt", None).raw("GET", "/livez")[0] == 200


# Who may do what --------------------------------------------------------------------------------------------------------

ADMIN_ONLY = [("PUT", "/replicationProtectedItems/other", {"properties": {}}), ("DELETE", ITEM, None), ("GET", "/tokens", None),
              ("PUT", "/tokens/mine", {"properties": {"role": "Admin"}}), ("DELETE", "/tokens/reader", None),
              ("PUT", "/replicationRecoveryPlans/p", {"properties": {}})]
OPERATORS = [("POST", ITEM + "/plannedFailover", {"properties": {}}), ("POST", ITEM + "/failoverCommit", None), ("POST", ITEM + "/failoverCancel", None),
             ("POST", ITEM + "/reProtect", None), ("POST", ITEM + "/preflight", None), ("POST", "/replicationJobs/1/resume", None),
             ("POST", "/replicationJobs/1/cancel", None), ("POST", "/replicationJobs/1/restart", None)]


@pytest.mark.parametrize("method,path,body", ADMIN_ONLY, ids=[f"{method} {path}" for method, path, _ in ADMIN_ONLY])
def test_only_an_admin_declares(sites, method, path, body):
    before = snapshot(sites)
    with pytest.raises(Refused) as refused:
        sites.operator.call(method, path, body)
    assert refused.value.status == 403
    expect_arm_error(403, refused.value.body, "control.forbidden_role")
    assert snapshot(sites) == before
    assert sites.api.audit()[0]["outcome"] == "refused" and sites.api.audit()[0]["actor"] == "operator"


@pytest.mark.parametrize("method,path,body", OPERATORS, ids=[f"{method} {path}" for method, path, _ in OPERATORS])
def test_a_reader_only_reads(sites, method, path, body):
    before = snapshot(sites)
    with pytest.raises(Refused) as refused:
        sites.reader.call(method, path, body)
    assert (refused.value.status, refused.value.code) == (403, "control.forbidden_role")
    assert snapshot(sites) == before
    assert sites.reader.get(ITEM)["name"] == "web01"


@pytest.mark.parametrize("token", [None, "nonsense", "bh_0000000000000000_" + "0" * 64], ids=["none", "malformed", "unknown"])
def test_without_a_good_token_nothing_is_told(sites, token):
    api = Api(sites.appliance, sites.pki.directory / "ca.crt", token)
    status, headers, text = api.raw("GET", "/v1" + ITEM)
    assert status == 401 and headers["www-authenticate"].startswith("Bearer") and "memory" not in text
    expect_arm_error(401, json.loads(text), "control.unauthenticated")


def test_a_token_that_was_removed_or_has_expired_is_refused(sites):
    for name, properties in (("gone", {"role": "Reader"}), ("short", {"role": "Reader", "lifetimeSeconds": 1})):
        secret = sites.api.call("PUT", f"/tokens/{name}", {"properties": properties})[2]["properties"]["secret"]
        api = Api(sites.appliance, sites.pki.directory / "ca.crt", secret)
        if name == "gone":
            assert api.get(ITEM)
            sites.api.call("DELETE", "/tokens/gone")
        harness.wait_until(lambda: api.raw("GET", "/v1" + ITEM)[0] == 401, 20, "the token's end")
    sites.api.call("DELETE", "/tokens/short")


# Bad requests -----------------------------------------------------------------------------------------------------------

def bad_requests():
    good = {"properties": Sites.declaration(None, "web02")}
    unknown = json.loads(json.dumps(good))
    unknown["properties"]["vm"]["colour"] = "red"
    wrong = json.loads(json.dumps(good))
    wrong["properties"]["vm"]["memory_mib"] = "much"
    put = "/replicationProtectedItems/web02"
    return {
        "malformed JSON": ("PUT", put, "{\"properties\": ", 400),
        "a key twice": ("PUT", put, '{"properties": {}, "properties": {}}', 400),
        "no object": ("PUT", put, "[1]", 400),
        "not UTF-8": ("PUT", put, b'{"properties": {"vm": {"name": "\xff\xfe"}}}', 400),
        "too deep": ("PUT", put, "[" * 5000 + "]" * 5000, 400),
        "an unknown field": ("PUT", put, json.dumps(unknown), 400),
        "a wrong type": ("PUT", put, json.dumps(wrong), 400),
        "an unknown field of a verb": ("POST", ITEM + "/plannedFailover", json.dumps({"properties": {"speed": "high"}}), 400),
        "an option that does not exist": ("POST", ITEM + "/plannedFailover", json.dumps(
            {"properties": {"providerSpecificDetails": {"instanceType": "HyperVReplicaAzureFailback", "dataSyncOption": "ForFun"}}}), 400),
        "the wrong direction": ("POST", ITEM + "/plannedFailover", json.dumps({"properties": {"failoverDirection": "PrimaryToRecovery"}}), (400, 409)),
        "an id that is none": ("PUT", "/replicationProtectedItems/" + "x" * 64, json.dumps(good), 400),
        "an unknown query": ("GET", ITEM + "?colour=red", None, 400),
        "a filter that is none": ("GET", "/replicationJobs?$filter=JobStatus%20like%20'x'", None, 400),
        "no such item": ("GET", "/replicationProtectedItems/nobody", None, 404),
        "no such job": ("POST", "/replicationJobs/999/cancel", None, 404),
        "no such path": ("GET", "/replicationThings", None, 404),
        "the wrong method": ("PATCH", ITEM, "{}", 405),
        "a verb in a wrong phase": ("POST", ITEM + "/reProtect", None, 409),
        "a huge body": ("PUT", put, json.dumps({"properties": {"vm": {"name": "x" * 70000}}}), 413),
        "no JSON at all": ("PUT", put, "a = 1", 400),
    }


@pytest.mark.parametrize("name", bad_requests())
def test_a_bad_request_gets_an_arm_error_and_changes_nothing(sites, name):
    method, path, body, expected = bad_requests()[name]
    before = snapshot(sites)
    status, _, text = sites.api.raw(method, "/v1" + path, body)
    assert status in (expected if isinstance(expected, tuple) else (expected,)), (status, text)
    expect_arm_error(status, json.loads(text))
    assert snapshot(sites) == before


def test_the_field_that_is_wrong_is_named(sites):
    body = {"properties": sites.declaration("web02")}
    body["properties"]["vm"]["memory_mib"] = 0
    body["properties"]["vm"]["colour"] = "red"
    with pytest.raises(Refused) as refused:
        sites.api.call("PUT", "/replicationProtectedItems/web02", body)
    text = json.dumps(refused.value.body)
    assert "memory_mib" in text and "colour" in text, text


def send_raw(sites, data, finish=True):
    """What comes back for these bytes over TLS; None when nothing came."""
    with socket.create_connection(("127.0.0.1", sites.appliance.port), 20) as plain, \
            sites.api.context.wrap_socket(plain, server_hostname="127.0.0.1") as stream:
        stream.settimeout(20)
        stream.sendall(data)
        answer = b""
        try:
            while piece := stream.recv(65536):
                answer += piece
        except OSError:
            pass
        return answer.decode("latin-1")


def test_a_header_that_is_too_large_and_what_is_no_http(sites):
    answer = send_raw(sites, b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Big: " + b"x" * 40000 + b"\r\n\r\n")
    assert answer.startswith("HTTP/1.1 431"), answer[:200]
    answer = send_raw(sites, b"HELLO\r\n\r\n")
    assert answer.startswith("HTTP/1.1 400"), answer[:200]
    assert sites.api.get(ITEM)


def test_a_slow_client_is_told_so_and_holds_nobody_up(sites):
    started = time.monotonic()
    answer = send_raw(sites, b"PUT /v1/replicationProtectedItems/x HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    assert answer.startswith("HTTP/1.1 408"), answer[:200]
    assert time.monotonic() - started >= 1, "it had its second"
    expect_arm_error(408, json.loads(answer.split("\r\n\r\n", 1)[1]), "http.too_slow")
    assert sites.api.get(ITEM)


def test_arm_and_short_paths_are_the_same_tree_and_another_vault_is_none(sites):
    arm = Api(sites.appliance, sites.pki.directory / "ca.crt", sites.api.token, ARM)
    long = ARM + "/replicationFabrics/backhaul/replicationProtectionContainers/items" + ITEM
    assert arm.get(ITEM)["properties"]["backhaul"] == sites.api.get(ITEM)["properties"]["backhaul"]
    assert sites.api.raw("GET", long + "?api-version=2023-06-01")[0] == 200
    assert sites.api.raw("GET", ARM.replace("/lab", "/other") + ITEM)[0] == 404


def test_changes_from_an_old_version_are_refused(sites):
    _, headers, _ = sites.api.call("GET", ITEM)
    timeout = sites.api.item("web01")["backhaul"]["declaration"]["shutdown"]["timeout_s"]
    body = {"properties": sites.declaration("web01", shutdown={"timeout_s": timeout + 1, "allow_force": False})}
    _, newer, _ = sites.api.call("PUT", ITEM, body, {"If-Match": headers["etag"]})
    assert newer["etag"] != headers["etag"]
    for header in ({"If-Match": headers["etag"]}, {"If-None-Match": "*"}):
        with pytest.raises(Refused) as refused:
            sites.api.call("PUT", ITEM, body, header)
        assert refused.value.status == 412


def test_the_audit_log_tells_who_did_what(sites):
    sites.api.call("PUT", "/replicationProtectedItems/audited", {"properties": sites.declaration("audited")})
    sites.api.call("DELETE", "/replicationProtectedItems/audited")
    found = [(entry["actor"], entry["action"], entry["outcome"]) for entry in sites.api.audit(object="item/audited")]
    assert len(found) == 2 and all(actor == "admin" and outcome == "accepted" for actor, _, outcome in found), found


def test_events_tell_what_changed(sites):
    with subprocess.Popen(sites.words("events", "--json"), stdout=subprocess.PIPE, text=True,
                          env={**os.environ, "BACKHAUL_TOKEN": sites.reader.token}) as process:
        try:
            seen, number = [], 0
            # The stream begins some time after the process; what comes before is not told. So: changes until one was seen.
            import threading
            threading.Thread(target=lambda: seen.extend(iter(process.stdout.readline, "")), daemon=True).start()

            def changed():
                nonlocal number
                number += 1
                sites.api.call("PUT", ITEM, {"properties": sites.declaration("web01", shutdown={"timeout_s": 5 + number % 2, "allow_force": False})})
                return any(json.loads(line)["id"] == "web01" and json.loads(line)["kind"] == "item" for line in list(seen))
            harness.wait_until(changed, 30, "an event")
        finally:
            process.kill()


# The command line -------------------------------------------------------------------------------------------------------

def test_items_and_plans_are_declared_by_the_command_line(sites):
    assert "db01 added" in sites.cli("item", "add", EXAMPLE / "db01.toml").stdout
    try:
        again = sites.cli("item", "add", EXAMPLE / "db01.toml", check=False)
        assert again.returncode == 1 and "fix:" in again.stderr, again
        assert "db01 changed" in sites.cli("item", "add", "--replace", EXAMPLE / "db01.toml").stdout
        shown = sites.cli_json("item", "show", "db01")
        assert shown["properties"]["backhaul"]["declaration"]["vm"]["memory_mib"] == 4096
        listed = sites.cli("item", "list").stdout
        assert "db01" in listed and "FailoverCommitted" in listed
        assert {item["name"] for item in sites.cli_json("item", "list")["value"]} == {"db01", "web01"}
        assert "shop added" in sites.cli("plan", "add", EXAMPLE / "plan.toml").stdout
        groups = sites.cli_json("plan", "show", "shop")["properties"]["backhaul"]["declaration"]["groups"]
        assert [group["name"] for group in groups] == ["database", "web"]
        assert "shop" in sites.cli("plan", "list").stdout
        assert "shop removed" in sites.cli("plan", "remove", "shop").stdout
    finally:
        assert "db01 removed" in sites.cli("item", "remove", "db01", "--wait").stdout
    assert sites.cli("item", "show", "db01", check=False).returncode == 1


def test_a_declaration_with_mistakes_is_refused_before_anything_is_sent(sites, folder):
    path = folder / "bad.toml"
    path.write_text((EXAMPLE / "db01.toml").read_text().replace("memory_mib = 4096", "memory_mib = 0\ncolour = 1"))
    before = sites.api.audit()[0]["id"]
    done = sites.cli("item", "add", path, "--json", check=False)
    assert done.returncode == 2 and harness.last_json(done.stdout)["error"]["code"] == "control.bad_file"
    assert "bad.toml:6: vm.memory_mib" in done.stderr and "bad.toml:7: vm.colour" in done.stderr, done.stderr
    assert sites.api.audit()[0]["id"] == before


def test_tokens_are_made_listed_and_removed_by_the_command_line(sites):
    secret = sites.cli("token", "create", "ops", "--role", "Operator", "--lifetime", "2h").stdout.strip()
    try:
        assert sites.cli_json("item", "list", token=secret)["value"]
        listed = {token["name"]: token["properties"] for token in sites.cli_json("token", "list")["value"]}
        assert listed["ops"]["role"] == "Operator" and "expiresTime" in listed["ops"] and "secret" not in listed["ops"]
        done = sites.cli("token", "list", token=secret, check=False)
        assert done.returncode == 1 and "control.forbidden_role" in done.stderr
    finally:
        sites.cli("token", "remove", "ops")
    assert sites.cli("item", "list", token=secret, check=False).returncode == 1


def test_on_the_appliance_s_machine_a_token_can_be_had_without_one(sites):
    made = harness.run(harness.program(), "token", "create", "local", "--role", "Admin", "--state", sites.folder / "state").stdout.strip()
    assert "local" in sites.cli("token", "list", token=made).stdout
    assert any(entry["actor"] == "local" for entry in sites.api.audit(object="token/local"))
    sites.cli("token", "remove", "local")
    done = harness.run(harness.program(), "token", "create", "x", "--state", sites.folder, check=False)
    assert done.returncode == 2 and "is not the state directory" in done.stderr


@pytest.mark.parametrize("words,code", [(["item", "show", "no/id"], 2), (["item", "show", "nobody"], 1), (["job", "watch", "999"], 1), (["item"], 2),
                                        (["item", "failover", "web01", "--complete", "scheduled"], 2), (["item", "reprotect", "web01"], 1),
                                        (["audit", "list", "--limit", "0"], 2), (["token", "create", "x", "--lifetime", "soon"], 2)],
                         ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_exit_codes(sites, words, code):
    done = sites.cli(*words, check=False)
    assert done.returncode == code, done
    assert "fix:" in done.stderr or "--help" in done.stderr, done.stderr


def test_what_the_command_line_needs_to_connect_is_named(sites, folder):
    def attempt(*words, **environment):
        clean = {name: value for name, value in os.environ.items() if not name.startswith("BACKHAUL_")}
        done = harness.run(harness.program(), "item", "list", *words, check=False, env={**clean, **environment}, timeout=60)
        return done.returncode, done.stderr
    url, token = f"https://127.0.0.1:{sites.appliance.port}", sites.api.token
    code, text = attempt("--api", url, "--tls", str(sites.pki.appliance))
    assert code == 2 and "--token-file" in text
    code, text = attempt("--api", "http://127.0.0.1", BACKHAUL_TOKEN=token)
    assert code == 2 and "https://HOST:PORT" in text
    code, text = attempt("--api", url, "--ca", str(folder / "none.crt"), BACKHAUL_TOKEN=token)
    assert code == 1 and "none.crt" in text
    code, text = attempt("--api", "https://127.0.0.1:1", "--ca", str(sites.pki.directory / "ca.crt"), BACKHAUL_TOKEN=token)
    assert code == 1 and "link." in text
    with open(folder / "token", "w") as file:
        file.write(token + "\n")
    assert attempt("--token-file", str(folder / "token"), BACKHAUL_API=url, BACKHAUL_TLS=str(sites.pki.appliance))[0] == 0


def test_what_the_sdk_s_users_see_of_a_refusal(sites):
    found = sites_module.node("failback.mjs", sites, "refusedCommit", "web01")
    assert found["status"] == 409 and found["code"] == "control.forbidden_in_phase", found
