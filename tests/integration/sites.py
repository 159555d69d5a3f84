"""Both sites of a failback on one machine: the appliance, host agents, and VMs that are plain files, held and read by the
`command` driver of examples/files. Daemons are the real program over loopback TLS; the API is spoken by Python's own HTTP.

    with Sites(folder, pki) as sites:
        sites.declare("web01")
        job = sites.api.failover("web01")
        sites.rest(job)
"""
import contextlib
import dataclasses
import hashlib
import http.client
import json
import os
import pathlib
import ssl
import urllib.parse

import harness
from harness import MIB

DRIVER = harness.ROOT / "examples" / "files" / "vm-driver"
PYTHON = ["/usr/bin/python3", "-S", "-E"]
ARM = "/subscriptions/s/resourceGroups/g/providers/Microsoft.RecoveryServices/vaults/lab"
DISKS = {"os": 24 * MIB, "data": 16 * MIB + 512 * 3}
ENDED = ("Succeeded", "Failed", "Cancelled")

# Nothing waits for its usual minute; a round still takes many looks of the runner.
PACE = {"poll_ms": 20, "look_ms": 100, "delta_interval_ms": 600, "delta_least_ms": 200, "retry_first_ms": 100, "retry_last_ms": 400,
        "attempts": 40, "tell_progress_ms": 50, "minute_s": 1}


class Refused(AssertionError):
    """An answer from 400 on."""

    def __init__(self, status, body, headers):
        self.status, self.body, self.headers = status, body, headers
        self.code = (body or {}).get("error", {}).get("code")
        super().__init__(f"{status} {json.dumps(body)}")


class Api:
    """The control API, as one token sees it."""

    def __init__(self, appliance, ca, token, base="/v1"):
        self.appliance, self.token, self.base = appliance, token, base
        self.context = ssl.create_default_context(cafile=str(ca))

    def connect(self, timeout=60):
        return http.client.HTTPSConnection("127.0.0.1", self.appliance.port, timeout=timeout, context=self.context)

    def raw(self, method, path, body=None, headers=None, timeout=60):
        """(status, headers with lower-case names, body as text)."""
        connection = self.connect(timeout)
        try:
            sent = {"Authorization": f"Bearer {self.token}"} if self.token else {}
            if body is not None:
                sent["Content-Type"] = "application/json"
            sent.update(headers or {})
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read().decode()
        finally:
            connection.close()

    def call(self, method, path, body=None, headers=None):
        """(status, headers, JSON); raises Refused from 400 on. `path` is below the base."""
        text = json.dumps(body) if body is not None else None
        status, found, text = self.raw(method, self.base + path, text, headers)
        parsed = json.loads(text) if text else None
        if status >= 400:
            raise Refused(status, parsed, found)
        return status, found, parsed

    def get(self, path):
        return self.call("GET", path)[2]

    def list(self, path):
        """All pages."""
        values, target = [], self.base + path
        while target:
            status, headers, text = self.raw("GET", target)
            body = json.loads(text)
            if status >= 400:
                raise Refused(status, body, headers)
            values += body["value"]
            following = body.get("nextLink")
            target = following and urllib.parse.urlsplit(following)._replace(scheme="", netloc="").geturl()
        return values

    def verb(self, path, properties=None):
        """An asynchronous verb; returns the job's id (None: there was nothing left to do)."""
        status, headers, _ = self.call("POST", path, None if properties is None else {"properties": properties})
        if status == 200:
            return None
        assert status == 202 and headers["retry-after"], (status, headers)
        return urllib.parse.urlsplit(headers["azure-asyncoperation"]).path.rsplit("/", 1)[1]

    # Items, jobs, plans ---------------------------------------------------------------------------------------------

    def item(self, item):
        return self.get(f"/replicationProtectedItems/{item}")["properties"]

    def state(self, item):
        return self.item(item)["protectionState"]

    def failover(self, item, sync="ForDownTime", direction=None, **own):
        details = {"instanceType": "HyperVReplicaAzureFailback", "dataSyncOption": sync}
        for name in ("recoveryVmCreationOption", "providerIdForAlternateRecovery"):
            if name in own:
                details[name] = own.pop(name)
        properties = {"providerSpecificDetails": details}
        if direction:
            properties["failoverDirection"] = direction
        if own:
            properties["backhaul"] = own
        return self.verb(f"/replicationProtectedItems/{item}/plannedFailover", properties)

    def commit(self, item, **own):
        return self.verb(f"/replicationProtectedItems/{item}/failoverCommit", {"backhaul": own} if own else None)

    def cancel_failover(self, item):
        return self.verb(f"/replicationProtectedItems/{item}/failoverCancel")

    def reprotect(self, item):
        return self.verb(f"/replicationProtectedItems/{item}/reProtect")

    def job(self, job):
        return self.get(f"/replicationJobs/{job}")["properties"]

    def resume(self, job):
        return self.verb(f"/replicationJobs/{job}/resume")

    def cancel(self, job):
        return self.verb(f"/replicationJobs/{job}/cancel")

    def restart(self, job):
        return self.verb(f"/replicationJobs/{job}/restart")

    def audit(self, **query):
        return self.get("/audit?" + urllib.parse.urlencode({"limit": 1000, **query}))["value"]


class Appliance(harness.Daemon):
    name = "appliance"

    def __init__(self, config, state):
        super().__init__()
        self.config, self.state = config, state

    def command(self):
        text = self.config.read_text()
        if self.port:  # again on the port it had
            self.config.write_text(text.replace("127.0.0.1:0", f"127.0.0.1:{self.port}", 1))
        return [harness.program(), "appliance", "--config", str(self.config)]

    def admin_token(self):
        return (self.state / "admin.token").read_text().strip()


def toml(value):
    """A value as TOML writes it inline."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {toml(inner)}" for name, inner in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value if isinstance(value, (bool, int, float)) else str(value))


@dataclasses.dataclass
class Place:
    """One site's folders."""
    root: pathlib.Path
    program: pathlib.Path = DRIVER  # of its VM driver

    def __post_init__(self):
        for path in (self.disks, self.vms):
            path.mkdir(parents=True, exist_ok=True)

    @property
    def disks(self):
        return self.root / "disks"

    @property
    def vms(self):
        return self.root / "vms"

    def environment(self):
        return {"BACKHAUL_FILES_ROOT": str(self.vms), "BACKHAUL_FILES_STORE": str(self.disks)}

    def driver(self):
        return {"name": "files", "command": [*PYTHON, self.program], "timeout_s": 30, "env": self.environment()}

    def disk(self, vm, name):
        return self.disks / f"{vm}-{name}.img"

    def power(self, vm):
        try:
            return (self.vms / vm / "state").read_text().strip()
        except FileNotFoundError:
            return "absent"

    def hold(self, vm, verb):
        """Keeps the driver's verb from beginning; use as `with place.hold("web01", "start") as held: held.wait()`."""
        return Hold(self.vms / vm, verb)

    def write(self, vm, disk, offset, text):
        """Plays the guest: what this has returned from is what the guest was told is written."""
        request = {"vm": vm, "disks": [{"name": disk, "path": f"{vm}-{disk}.img"}], "disk": disk, "offset": offset, "text": text}
        harness.run(*PYTHON, DRIVER, "write", input=json.dumps(request), env={**os.environ, **self.environment()})


class Hold:
    def __init__(self, folder, verb):
        self.file, self.held = folder / f"hold-{verb}", folder / f"held-{verb}"

    def __enter__(self):
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.touch()
        return self

    def wait(self, timeout=60):
        harness.wait_until(self.held.exists, timeout, f"{self.held.name}")

    def release(self):
        self.file.unlink(missing_ok=True)

    def __exit__(self, *error):
        self.release()


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Sites:
    """A recovery site with its appliance and one or more primary sites ("hv01", ...)."""

    def __init__(self, folder, pki, hosts=("hv01",), pace=None, limits=None, networks=("LAN",), more="", host_more=None):
        self.folder, self.pki, self.networks = pathlib.Path(folder), pki, networks
        self.pace, self.limits, self.more = {**PACE, **(pace or {})}, limits or {}, more
        self.recovery = Place(self.folder / "recovery")
        self.primary = {name: Place(self.folder / name) for name in hosts}
        self.hosts, self.stack = {}, contextlib.ExitStack()
        self.host_more = host_more or {}

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            for name, place in self.primary.items():
                self.hosts[name] = stack.enter_context(self.make_host(name, place))
            state = self.folder / "state"
            config = self.folder / "appliance.toml"
            config.write_text(self.appliance_config(state))
            self.appliance = stack.enter_context(Appliance(config, state))
            self.api = Api(self.appliance, self.pki.directory / "ca.crt", self.appliance.admin_token())
            self.stack = stack.pop_all()
        return self

    def __exit__(self, kind, value, trace):
        return self.stack.__exit__(kind, value, trace)

    def make_host(self, name, place):
        config = self.folder / f"{name}.toml"
        networks = self.host_more.get(name, {}).get("networks", self.networks)
        config.write_text(f"sources = [{toml(place.vms)}]\nnetworks = {toml(networks)}\ndrivers = [{toml(place.driver())}]\n")
        return harness.Host(place.disks, self.pki, arguments=["--config", str(config)])

    def appliance_config(self, state):
        hosts = [{"id": name, "address": f"127.0.0.1:{host.port}"} for name, host in self.hosts.items()]
        lines = ['listen = "127.0.0.1:0"', f"tls = {toml(self.pki.appliance)}", 'vault = "lab"', f"state = {toml(state)}",
                 f"store = {toml(self.recovery.disks)}", f"sources = [{toml(self.recovery.vms)}]", f"networks = {toml(self.networks)}",
                 f"hosts = {toml(hosts)}", f"drivers = [{toml(self.recovery.driver())}]", f"pace = {toml(self.pace)}"]
        if self.limits:
            lines.append(f"limits = {toml(self.limits)}")
        return "\n".join(lines) + "\n" + self.more

    def host(self, name="hv01"):
        return self.hosts[name]

    def home(self, name="hv01"):
        return self.primary[name]

    # VMs ------------------------------------------------------------------------------------------------------------

    def make_vm(self, vm, disks=None, changed=0.2, seed=1, home="hv01", old=True):
        """A VM that failed over: it runs at the recovery site; at home are the old disks (unless `old` is false), and the VM, off."""
        for number, (name, size) in enumerate((disks or DISKS).items()):
            here = harness.make_image(self.recovery.disk(vm, name), size, "mixed", seed + number)
            if old:
                harness.copy_sparse(here, self.primary[home].disk(vm, name))
            if changed:
                harness.change_blocks(here, changed, seed + number)
        self.set_power(self.recovery, vm, "running")
        if old:
            self.set_power(self.primary[home], vm, "off")

    @staticmethod
    def set_power(place, vm, state):
        (place.vms / vm).mkdir(parents=True, exist_ok=True)
        (place.vms / vm / "state").write_text(state + "\n")

    def declaration(self, vm, disks=None, home="hv01", **more):
        places = [{"name": name, "path": f"{vm}-{name}.img"} for name in (disks or DISKS)]
        return {"vm": {"name": vm, "generation": 2, "memory_mib": 1024, "cpus": 2, "nics": [{"name": "eth0", "network": "LAN"}]},
                "recovery": {"driver": "files", "disks": places}, "primary": {"host": home, "driver": "files", "disks": places},
                "shutdown": {"timeout_s": 5, "allow_force": False}, **more}

    def declare(self, vm, disks=None, changed=0.2, seed=1, home="hv01", old=True, **more):
        """Makes the VM's files and its item. Returns the digests of the old disks at home."""
        self.make_vm(vm, disks, changed, seed, home, old)
        self.api.call("PUT", f"/replicationProtectedItems/{vm}", {"properties": self.declaration(vm, disks, home, **more)})
        return self.digests(vm, self.primary[home], disks)

    def digests(self, vm, place, disks=None):
        return {name: sha256(place.disk(vm, name)) if place.disk(vm, name).exists() else None for name in (disks or DISKS)}

    def expect_home_equals_recovery(self, vm, disks=None, home="hv01"):
        assert self.digests(vm, self.primary[home], disks) == self.digests(vm, self.recovery, disks)

    def expect_powers(self, vm, recovery, primary, home="hv01"):
        assert (self.recovery.power(vm), self.primary[home].power(vm)) == (recovery, primary)

    def leftovers(self, home="hv01"):
        """What transfers have left beside the disks at a primary site."""
        return sorted(path.name for path in self.primary[home].disks.rglob("*.backhaul"))

    # Jobs -----------------------------------------------------------------------------------------------------------

    def wait_job(self, job, condition, timeout=180, what=None):
        """Polls the job until condition(properties); survives an appliance that is away."""
        last = {}

        def look():
            with contextlib.suppress(OSError, http.client.HTTPException):
                last.update(self.api.job(job))
                return last if condition(last) else None
        try:
            return harness.wait_until(look, timeout, what or f"job {job}")
        except AssertionError as late:
            raise AssertionError(f"{late}: {json.dumps(last, indent=1)[:6000]}") from None

    def wait_task(self, job, task, timeout=180):
        return self.wait_job(job, lambda now: now["backhaul"].get("currentTask") == task or now["state"] in ENDED, timeout, f"task {task}")

    def wait_state(self, job, *states, timeout=180):
        return self.wait_job(job, lambda now: now["state"] in states, timeout, f"job {job} {states}")

    def end(self, job, state="Succeeded", timeout=180):
        """Waits for the job's end, which must be this."""
        found = self.wait_state(job, *ENDED, timeout=timeout)
        assert found["state"] == state, json.dumps(found, indent=1)[:6000]
        return found

    def suspended(self, job, timeout=180):
        found = self.wait_state(job, "Suspended", *ENDED, timeout=timeout)
        assert found["state"] == "Suspended", json.dumps(found, indent=1)[:6000]
        return found

    def fail_back(self, vm, **options):
        """A whole planned failover up to commit pending."""
        job = self.api.failover(vm, **options)
        if options.get("sync", "ForDownTime") == "ForDownTime":
            self.suspended(job)
            self.api.resume(job)
        return self.end(job)

    def expect_as_before(self, vm, old):
        """What a cancel promises: the old disks are back byte for byte, nothing else is left, and the recovery VM runs."""
        assert self.digests(vm, self.home()) == old
        self.expect_powers(vm, recovery="running", primary="off")
        assert [name for name in self.leftovers() if name.startswith(f".{vm}-")] == []
        assert self.api.state(vm) == "FailoverCommitted"

    def settle(self):
        """Ends what a test has left running, so that it does not take the machine from the next: daemons up, no job waits, nothing replicates."""
        for daemon in (*self.hosts.values(), self.appliance):
            if daemon.process is None:
                daemon.start()
        for job in self.api.list("/replicationJobs?" + urllib.parse.urlencode({"$filter": "JobStatus eq 'Suspended,InProgress'"})):
            with contextlib.suppress(Refused):
                self.api.cancel(job["name"])
        for plan in self.api.list("/replicationRecoveryPlans"):
            with contextlib.suppress(Refused):
                self.api.call("DELETE", f"/replicationRecoveryPlans/{plan['name']}")
        for item in self.api.list("/replicationProtectedItems"):
            if item["properties"]["protectionState"] == "Protected":
                self.api.call("DELETE", f"/replicationProtectedItems/{item['name']}")

    # The command line -----------------------------------------------------------------------------------------------

    def words(self, *words, token=None):
        return [harness.program(), *map(str, words), "--api", f"https://127.0.0.1:{self.appliance.port}", "--tls", str(self.pki.appliance)]

    def cli(self, *words, check=True, token=None, timeout=120):
        """Runs a command of the API; the token goes by the environment."""
        return harness.run(*self.words(*words), check=check, timeout=timeout,
                           env={**os.environ, "BACKHAUL_TOKEN": token or self.api.token})

    def cli_json(self, *words, **options):
        done = self.cli(*words, "--json", **options)
        return harness.last_json(done.stdout)


def need_sdk():
    """The folder with Microsoft's SDK (`./dev setup test`)."""
    cache = pathlib.Path(os.environ.get("BACKHAUL_CACHE", harness.ROOT / "build" / ".cache")) / "sdk"
    assert (cache / "node_modules" / "@azure").is_dir(), f"no SDK in {cache}: run ./dev setup test"
    return cache.resolve()


def node(script, sites, *words, timeout=180):
    """Runs a script of tests/integration/sdk with the system's node; returns its last line as JSON."""
    environment = {**os.environ, "BACKHAUL_SDK": str(need_sdk()), "BACKHAUL_API": f"https://127.0.0.1:{sites.appliance.port}",
                   "BACKHAUL_TOKEN": sites.api.token, "NODE_EXTRA_CA_CERTS": str(sites.pki.directory / "ca.crt")}
    done = harness.run("/usr/bin/node", harness.ROOT / "tests" / "integration" / "sdk" / script, *words, timeout=timeout, env=environment)
    found = harness.last_json(done.stdout)
    assert found is not None, done.stdout + done.stderr
    return found
