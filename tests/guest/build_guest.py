#!/usr/bin/python3
"""A real, bootable Linux disk, small enough for a test: MBR, BIOS boot by syslinux from a FAT partition, an ext4 data
partition, Debian's cloud kernel and busybox. Nothing is mounted and no loop device is needed.

At boot the guest mounts its data partition read-only and prints on the first serial port, one fact a line:

    BACKHAUL-GUEST begin
    BACKHAUL-GUEST generation <text of /generation>
    BACKHAUL-GUEST sha256 <64 hex digits> <file name>        (for each file in /files)
    BACKHAUL-GUEST end

and powers off. The caller knows what should stand there (GuestDisk.files), so the guest itself is trusted with nothing.

Command line:  build_guest.py DISK [--size 256M] [--seed N] [--generation TEXT] [--files N] [--file-size 512K]
               build_guest.py DISK --advance OLD --generation TEXT    a later state of the disk OLD
"""
import argparse
import dataclasses
import fcntl
import gzip
import hashlib
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = pathlib.Path(os.environ.get("BACKHAUL_CACHE", ROOT / "build" / ".cache"))

SECTOR = 512
BOOT_START = 2048 * SECTOR
BOOT_BYTES = 64 << 20
DATA_START = BOOT_START + BOOT_BYTES
DATA_UUID = "6b3f2a52-5d0c-4d7e-9f0a-bac4a1000001"
MARK = "BACKHAUL-GUEST"

# Order matters: each stands on those before it.
MODULES = """virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk
scsi_common scsi_mod libata ata_piix sd_mod""".split()

INIT = f"""#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
for module in {' '.join(MODULES)}; do insmod /modules/$module.ko 2>/dev/null; done
exec >/dev/ttyS0 2>&1
tries=0
until [ -b /dev/vda2 ] || [ -b /dev/sda2 ] || [ $tries -ge 100 ]; do tries=$((tries + 1)); sleep 0.1; done
disk=/dev/vda2; [ -b $disk ] || disk=/dev/sda2
echo "{MARK} begin"
if mount -t ext4 -o ro $disk /data; then
  echo "{MARK} generation $(cat /data/generation)"
  cd /data/files && for file in *; do echo "{MARK} sha256 $(sha256sum $file)"; done
else
  echo "{MARK} error no data partition on $disk"
fi
echo "{MARK} end"
poweroff -f
"""

SYSLINUX = "SERIAL 0 115200\nDEFAULT linux\nPROMPT 0\nTIMEOUT 1\nLABEL linux\n KERNEL vmlinuz\n INITRD initrd.gz\n" \
           " APPEND console=ttyS0 quiet panic=-1\n"


@dataclasses.dataclass
class GuestDisk:
    """What a guest disk holds. `files` is name -> sha256; `recipe` is name -> the generation that wrote the file."""
    path: str
    size: int
    seed: int
    generation: str
    file_size: int
    recipe: dict
    files: dict

    def save(self):
        pathlib.Path(self.path + ".json").write_text(json.dumps(dataclasses.asdict(self), indent=1))

    @staticmethod
    def load(path):
        return GuestDisk(**json.loads(pathlib.Path(str(path) + ".json").read_text()))


def run(*command, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def kernel_tree():
    """Debian's cloud kernel, unpacked below the cache and not installed. Downloads it when the cache is empty."""
    CACHE.mkdir(parents=True, exist_ok=True)
    tree = CACHE / "guest-kernel"
    with open(CACHE / "guest-kernel.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not tree.exists():
            packages = re.findall(r"linux-image-[0-9]\S*-cloud-amd64", run("apt-cache", "depends", "linux-image-cloud-amd64"))
            if not packages:
                raise RuntimeError("apt knows no linux-image-cloud-amd64: run ./dev setup")
            with tempfile.TemporaryDirectory(dir=CACHE) as work:
                run("apt-get", "download", "-q", packages[0], cwd=work)
                (package,) = pathlib.Path(work).glob("*.deb")
                run("dpkg-deb", "-x", package, pathlib.Path(work) / "tree")
                os.rename(pathlib.Path(work) / "tree", tree)
    return tree


def make_initrd(tree, target, init=INIT, modules=MODULES):
    """Busybox, kernel modules and an init script."""
    with tempfile.TemporaryDirectory() as work:
        root = pathlib.Path(work) / "root"
        for name in ("bin", "proc", "sys", "dev", "data", "modules"):
            (root / name).mkdir(parents=True)
        shutil.copy("/bin/busybox", root / "bin" / "busybox")
        for name in modules:
            (found,) = tree.glob(f"lib/modules/*/kernel/**/{name}.ko")
            shutil.copy(found, root / "modules")
        (root / "init").write_text(init)
        (root / "init").chmod(0o755)
        names = sorted(str(path.relative_to(root)) for path in root.rglob("*"))
        for name in names:
            os.utime(root / name, (0, 0), follow_symlinks=False)
        archive = subprocess.run(["cpio", "-o", "-H", "newc", "--quiet", "--reproducible", "-R", "0:0"], cwd=root,
                                 input="\n".join(names).encode(), capture_output=True, check=True).stdout
        target.write_bytes(gzip.compress(archive, 6, mtime=0))


def file_content(seed, name, generation, size):
    """Bytes that only depend on the arguments; the last quarter is text-like, so that compression has something to do."""
    source = random.Random(f"{seed}/{name}/{generation}")
    noise = source.randbytes(size - size // 4)
    line = f"{name} of generation {generation}\n".encode()
    return noise + (line * (size // 4 // len(line) + 1))[: size - len(noise)]


def build(path, *, size=256 << 20, seed=1, generation="1", files=16, file_size=512 << 10):
    """Makes the disk from nothing. The same arguments give the same file contents."""
    path = str(path)
    if size < DATA_START + (8 << 20) + files * file_size * 5 // 4:
        raise ValueError(f"{size} bytes are too few for {files} files of {file_size}")
    tree = kernel_tree()
    (kernel,) = tree.glob("boot/vmlinuz-*")
    environment = dict(os.environ, MTOOLS_SKIP_CHECK="1", E2FSPROGS_FAKE_TIME="1700000000")
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        make_initrd(tree, work / "initrd.gz")
        (work / "syslinux.cfg").write_text(SYSLINUX)
        shutil.copy(kernel, work / "vmlinuz")
        data = work / "data"
        (data / "files").mkdir(parents=True)
        (data / "generation").write_text(generation + "\n")
        recipe = {f"{number:03d}.bin": generation for number in range(files)}
        digests = {}
        for name in recipe:
            content = file_content(seed, name, generation, file_size)
            (data / "files" / name).write_bytes(content)
            digests[name] = hashlib.sha256(content).hexdigest()

        with open(path, "wb") as disk:
            disk.truncate(size)
        run("sfdisk", "-q", path, input=f"label: dos\n{BOOT_START // SECTOR},64M,c,*\n,,83\n")
        # -s: else mkfs.vfat takes the cluster size from the whole file, and mtools refuses the result.
        run("mkfs.vfat", "--invariant", "-F", "32", "-s", "1", "--offset", BOOT_START // SECTOR, path, BOOT_BYTES // 1024)
        run("mcopy", "-i", f"{path}@@{BOOT_START}", work / "vmlinuz", work / "initrd.gz", work / "syslinux.cfg", "::",
            env=environment)
        run("syslinux", "-t", BOOT_START, "--install", path, env=environment)
        with open(path, "r+b") as disk:
            disk.write(pathlib.Path("/usr/lib/syslinux/mbr/mbr.bin").read_bytes()[:440])
        run("mkfs.ext4", "-q", "-F", "-d", data, "-U", DATA_UUID,
            "-E", f"offset={DATA_START},hash_seed={DATA_UUID}", path, f"{(size - DATA_START) // 4096 * 4}k", env=environment)
    guest = GuestDisk(path, size, seed, generation, file_size, recipe, digests)
    guest.save()
    return guest


def advance(old, path, *, generation, every=5):
    """A later state of the disk `old`: every `every`th file rewritten in the file system, the rest untouched."""
    path = str(path)
    run("cp", "--sparse=always", old.path, path)
    recipe, digests = dict(old.recipe), dict(old.files)
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        (work / "generation").write_text(generation + "\n")
        script = ["rm generation", f"write {work}/generation generation", "cd files"]
        for name in list(recipe)[::every]:
            content = file_content(old.seed, name, generation, old.file_size)
            (work / name).write_bytes(content)
            script += [f"rm {name}", f"write {work}/{name} {name}"]
            recipe[name], digests[name] = generation, hashlib.sha256(content).hexdigest()
        (work / "script").write_text("\n".join(script) + "\n")
        said = run("debugfs", "-w", "-f", work / "script", f"{path}?offset={DATA_START}")
        if "not found" in said or "error" in said.lower():
            raise RuntimeError(f"debugfs could not change {path}:\n{said}")
    guest = GuestDisk(path, old.size, old.seed, generation, old.file_size, recipe, digests)
    guest.save()
    return guest


def parse_report(serial):
    """What the guest said: (generation, {name: sha256}). Raises ValueError when the report is not whole."""
    lines = [line.strip() for line in serial.replace("\r", "").splitlines()]
    lines = [line[len(MARK) + 1:] for line in lines if line.startswith(MARK)]
    if "begin" not in lines or "end" not in lines:
        raise ValueError(f"the guest did not finish its report; serial says:\n{serial[-3000:]}")
    generation, files = None, {}
    for line in lines:
        kind, _, rest = line.partition(" ")
        if kind == "error":
            raise ValueError(f"the guest found: {rest}")
        if kind == "generation":
            generation = rest
        elif kind == "sha256":
            digest, _, name = rest.partition("  ")
            files[name] = digest
    return generation, files


def parse_size(text):
    match = re.fullmatch(r"(\d+)([KMGT]?)", text.upper())
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write it as 512K, 256M or 1G")
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[match[2]]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("disk", nargs="?")
    parser.add_argument("--fetch-kernel", action="store_true", help="fill the cache, make no disk")
    parser.add_argument("--size", type=parse_size, default=256 << 20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--generation", default="1")
    parser.add_argument("--files", type=int, default=16)
    parser.add_argument("--file-size", type=parse_size, default=512 << 10)
    parser.add_argument("--advance", metavar="OLD")
    options = parser.parse_args()
    if options.fetch_kernel:
        kernel_tree()
        return 0
    if not options.disk:
        parser.error("name the disk to make")
    if options.advance:
        guest = advance(GuestDisk.load(options.advance), options.disk, generation=options.generation)
    else:
        guest = build(options.disk, size=options.size, seed=options.seed, generation=options.generation,
                      files=options.files, file_size=options.file_size)
    print(json.dumps(dataclasses.asdict(guest)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
