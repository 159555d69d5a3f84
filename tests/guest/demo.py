#!/usr/bin/python3
"""The demo: a real disk comes home.

A bootable Linux disk of generation 2 stands at the recovery site, an older copy (generation 1) at the primary site as VHDX.
`backhaul send` makes the VHDX equal to the source by sending what differs; then once more, with both the sender and the
host agent killed in the middle. QEMU checks, compares and boots what arrived. Asks nothing, leaves nothing behind;
exit 1 when anything does not match.

    demo.py [--program PATH]
"""
import argparse
import os
import pathlib
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))
import harness  # noqa: E402

MIB = harness.MIB


def title(text):
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


def fact(name, value):
    print(f"  {name:24} {value}", flush=True)


def mib(count):
    return f"{count / MIB:,.1f} MiB"


def expect(condition, text):
    if not condition:
        raise AssertionError(text)
    print(f"  ok: {text}", flush=True)


def show_result(result):
    fact("disk", mib(result["disk_bytes"]))
    fact("read at the source", mib(result["bytes_read"]))
    fact("blocks compared", f"{result['blocks_compared']:,}")
    fact("blocks changed", f"{result['blocks_changed']:,} = {mib(result['blocks_changed'] * harness.BLOCK)}")
    fact("payload shipped", mib(result["payload_bytes"]))
    fact("on the wire", mib(result["wire_bytes"]))
    fact("not sent again", mib(result["resumed_bytes"]))
    fact("seconds", f"{result['seconds']:.2f}")
    fact("root digest, source", result["root_digest_source"])
    fact("root digest, target", result["root_digest_target"])


def check_delivery(source, target, result):
    expect(result["root_digest_source"] == result["root_digest_target"], "both ends computed the same root digest")
    harness.qemu_check(target)
    expect(True, "qemu-img check finds nothing wrong with the VHDX")
    harness.qemu_compare(source, "raw", target, "vhdx")
    expect(True, "qemu-img compare: source and VHDX are identical")


def send(host, pki, source, disk, **options):
    """Runs a send with its result as numbers."""
    words = harness.send_words(source, host.url(disk), pki, options) + ["--json"]
    print(f"  $ backhaul {' '.join(words[1:])}", flush=True)
    done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=600)
    expect(done.returncode == 0, f"backhaul send ended well {done.stdout if done.returncode else ''}".strip())
    return harness.last_json(done.stdout)


def send_watched(host, pki, source, disk, **options):
    """Runs a send as a person would, with progress and result on this terminal. Returns what it printed as its result."""
    words = harness.send_words(source, host.url(disk), pki, options)
    print(f"  $ backhaul {' '.join(words[1:])}", flush=True)
    done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=600)
    print("".join(f"    {line}\n" for line in done.stdout.splitlines()), end="", flush=True)
    expect(done.returncode == 0, "backhaul send ended well")
    return done.stdout


def interrupted_send(host, pki, source, disk):
    """Kills the sender, then the host agent, in the middle of a slowed send; then lets a third run finish."""
    options = {"sync": "full", "format": "vhdx", "lanes": 2, "verify": "written"}
    for victim in ("the sender", "the host agent"):
        with harness.sending(host, pki, source, disk, limit=30 * MIB, **options) as process:
            time.sleep(2.5)
            expect(process.poll() is None, f"the send is under way; kill -9 of {victim}")
            if victim == "the sender":
                process.kill()
            else:
                host.kill()
                process.kill()
                host.start()
    print("  the same command again, without the brake", flush=True)
    return send(host, pki, source, disk, **options)


def show_guest(target, guest):
    started = time.monotonic()
    generation, files = harness.expect_guest(target, "vhdx", guest, interface="ide")
    fact("booted and off again in", f"{time.monotonic() - started:.0f} s")
    fact("generation found", generation)
    for name in list(files)[:3]:
        fact(name, files[name])
    fact("...", f"{len(files)} files in all")
    expect(True, "the guest found generation 2 and every file with the SHA-256 of the source")


def demo(folder):
    title("1. Two sites: a running disk, and an older copy of it at home")
    store = folder / "primary-site"
    store.mkdir()
    older = harness.build_guest.build(folder / "older.raw", size=512 * MIB, files=40, file_size=4 * MIB, generation="1")
    source = harness.build_guest.advance(older, folder / "recovery-site.raw", generation="2", every=8)
    for name in ("web.vhdx", "db.vhdx"):
        harness.run("qemu-img", "convert", "-f", "raw", "-O", "vhdx", older.path, store / name)
    os.unlink(older.path)
    fact("source disk", f"{mib(source.size)}, {mib(harness.allocated_bytes(source.path))} of it allocated, generation 2")
    fact("copy at home", f"VHDX by QEMU, {mib(os.path.getsize(store / 'web.vhdx'))}, generation 1")

    title("2. Certificates, and the host agent at the primary site")
    pki = harness.make_pki(folder / "tls")
    with harness.Host(store, pki) as host:
        fact("host agent", f"127.0.0.1:{host.port}, mutual TLS 1.3")

        title("3. backhaul send: only what differs")
        result = send(host, pki, source.path, "web.vhdx", sync="delta", format="vhdx", lanes=2)
        show_result(result)
        expect(0 < result["blocks_changed"] < result["blocks_compared"], "a part of the blocks differed")
        check_delivery(source.path, store / "web.vhdx", result)

        title("4. The same send again: nothing is left to ship. `backhaul digest` agrees")
        send_watched(host, pki, source.path, "web.vhdx", sync="delta", format="vhdx", lanes=2)
        expect(harness.digest(source.path) == harness.digest(store / "web.vhdx") == result["root_digest_source"],
               "backhaul digest: source, VHDX and the send say the same")

        title("5. A second disk, with kill -9 of each side in the middle")
        result = interrupted_send(host, pki, source.path, "db.vhdx")
        show_result(result)
        expect(result["resumed_bytes"] > 0, "what was acknowledged before the kills was not sent again")
        check_delivery(source.path, store / "db.vhdx", result)
    title("6. QEMU boots what arrived")
    for name in ("web.vhdx", "db.vhdx"):
        print(f"  {name}", flush=True)
        show_guest(store / name, source)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", help="the backhaul program (default: build/release/backhaul)")
    options = parser.parse_args()
    if options.program:
        os.environ["BACKHAUL_BIN"] = options.program
    if not os.access(harness.program(), os.X_OK):
        print(f"demo: no program at {harness.program()}: run ./dev build", file=sys.stderr)
        return 1
    started = time.monotonic()
    try:
        with harness.temporary_folder() as folder:
            demo(folder)
    except (AssertionError, RuntimeError, ValueError, KeyError, OSError,
            subprocess.SubprocessError) as problem:
        print(f"\ndemo: FAILED: {problem}", file=sys.stderr)
        return 1
    title(f"The disk is home. {time.monotonic() - started:.0f} s in all.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
