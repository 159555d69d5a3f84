"""Fixtures over the harness. A seed is printed at the top and in every failure's report header; BACKHAUL_SEED replays it."""
import os
import pathlib
import random
import sys
import zlib

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import harness  # first: it makes the guests' builders importable
import guest_records
import qemu_sites as qemu_sites_module

SEED = int(os.environ.setdefault("BACKHAUL_SEED", str(random.SystemRandom().randrange(1 << 32))), 0)


def pytest_configure(config):
    config.addinivalue_line("markers", "records: many failbacks of real guests in a row; some minutes")
    config.addinivalue_line("markers", "alone: measures time or memory; runs after the others, one at a time")


def pytest_report_header():
    return f"BACKHAUL_SEED={SEED} BACKHAUL_BIN={harness.program()}"


def pytest_collection_modifyitems(config, items):
    # A missing program must fail every test by name, not skip them: a green run without it would be a lie.
    if not os.access(harness.program(), os.X_OK):
        raise pytest.UsageError(f"no program at {harness.program()}: run ./dev build, or set BACKHAUL_BIN")
    spread_long_tests(items, int(getattr(config, "workerinput", {}).get("workercount", 1)))


def spread_long_tests(items, workers):
    """Each worker begins with its share of the tests that take minutes: at the end one would run while the others wait.
    xdist gives every worker a first batch: a fourth of its share of all."""
    long = [item for item in items if item.get_closest_marker("records")]
    items[:] = [item for item in items if item not in long]
    batch = max((len(items) + len(long)) // workers // 4, 2)
    places = sorted((number % workers) * batch + number // workers for number in range(len(long)))
    for place, item in zip(places, long):
        items.insert(min(place, len(items)), item)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.failed:
        report.sections.append(("seed", f"BACKHAUL_SEED={SEED}"))


@pytest.fixture(scope="session")
def seed():
    return SEED


@pytest.fixture
def vm(request):
    """A name of the test's own, for its VM."""
    return f"vm{zlib.crc32(request.node.name.encode()):08x}"


@pytest.fixture
def folder():
    """A folder on disk, gone after the test."""
    with harness.temporary_folder() as path:
        yield path


@pytest.fixture
def shm_folder():
    """A folder in memory, gone after the test. O_DIRECT may not work there: that is its point."""
    with harness.temporary_folder("/dev/shm") as path:
        yield path


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    return harness.make_pki(tmp_path_factory.mktemp("tls") / "pki")


@pytest.fixture
def store(folder):
    path = folder / "store"
    path.mkdir()
    return path


@pytest.fixture
def host(store, pki):
    """A running host agent over an empty store."""
    with harness.Host(store, pki) as agent:
        yield agent


@pytest.fixture(params=["xfs", "btrfs"])
def reflink_store(request, folder):
    """A store on a file system with reflink copies."""
    try:
        with harness.reflink_filesystem(folder, request.param) as point:
            yield point
    except harness.CannotMount as reason:
        pytest.skip(f"cannot mount here: {reason}")


@pytest.fixture
def small_store(folder):
    """A store that is full after 8 MiB."""
    try:
        with harness.small_filesystem(folder) as point:
            yield point
    except harness.CannotMount as reason:
        pytest.skip(f"cannot mount here: {reason}")


@pytest.fixture(scope="session")
def guests(tmp_path_factory):
    """Two generations of one bootable disk: (older, newer), each a build_guest.GuestDisk. Read only: copy to change."""
    folder = tmp_path_factory.mktemp("guest")
    older = harness.build_guest.build(folder / "older.raw", size=160 << 20, seed=SEED, generation="1")
    newer = harness.build_guest.advance(older, folder / "newer.raw", generation="2")
    return older, newer


@pytest.fixture(scope="session")
def record_disks(tmp_path_factory):
    """The folder with a recording guest's fresh disks, os.raw and data.raw. Read only: copy to change."""
    folder = tmp_path_factory.mktemp("records")
    guest_records.build(folder / "os.raw", folder / "data.raw")
    return folder


@pytest.fixture
def qemu_sites(folder, pki, record_disks):
    """Both sites with QEMU, and one host agent at home (`make_guest` puts a VM there)."""
    with qemu_sites_module.QemuSites(folder, pki, record_disks) as made:
        yield made
