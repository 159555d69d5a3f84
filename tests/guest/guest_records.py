"""A guest that proves what was lost: it writes numbered records, each with fsync, to an ext4 file system on its first disk and to
the bare second disk (if it has one), and acknowledges each on the serial console once both have it. Booted from any
copy of its disks it goes on with the next number. It obeys the power button, unless it was built deaf.

    BHREC start 17        booted; the next record will be 17
    BHREC 17              record 17 is on the disks
    BHREC bye             the button was pressed: synced, unmounted, and off

The caller compares what was acknowledged (acknowledged()) with what is in the images (expect_records()).
"""
import gzip
import os
import pathlib
import shutil
import subprocess
import tempfile

from build_guest import BOOT_BYTES, BOOT_START, DATA_START, DATA_UUID, MODULES, SECTOR, kernel_tree, make_initrd, run

MARK = "BHREC"
RECORD = 16  # "record 00000017\n" in the file system
DATA_BYTES = 32 << 20
SIZE = DATA_START + DATA_BYTES + (1 << 20)  # the end is the GPT's second copy
SECOND_SIZE = 16 << 20

INIT = f"""#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
for module in {' '.join(MODULES)} button evdev; do insmod /modules/$module.ko 2>/dev/null; done
exec >/dev/ttyS0 2>&1
tries=0
until [ -b /dev/vda2 ] || [ -b /dev/sda2 ] || [ $tries -ge 100 ]; do tries=$((tries + 1)); sleep 0.1; done
kind=vd; [ -b /dev/vda2 ] || kind=sd
mount -t ext4 /dev/${{kind}}a2 /data || {{ echo "{MARK} error: no data partition"; poweroff -f; }}
second=/dev/${{kind}}b; [ -b $second ] || second=
# event0 is the keyboard, another one the power button. Read all of them.
grep -q bh.deaf /proc/cmdline || for event in /dev/input/event*; do (head -c 24 $event >/dev/null && touch /stop) & done
number=$(( $(stat -c %s /data/records 2>/dev/null || echo 0) / {RECORD} ))
echo "{MARK} start $number"
while [ ! -e /stop ]; do
  printf 'record %08d\\n' $number >/record
  dd if=/record of=/data/records bs={RECORD} seek=$number conv=notrunc,fsync 2>/dev/null || break
  [ -z "$second" ] || dd if=/record of=$second bs=512 seek=$number conv=notrunc,fsync 2>/dev/null || break
  echo "{MARK} $number"
  number=$((number + 1))
  sleep 0.03
done
umount /data; sync
[ -e /stop ] && echo "{MARK} bye" || echo "{MARK} error: a write failed"
poweroff -f
"""


def command_line(deaf):
    return "console=ttyS0 quiet panic=-1" + (" bh.deaf" if deaf else "")


def put_bios_boot(path, work, kernel, deaf, environment):
    (work / "syslinux.cfg").write_text("SERIAL 0 115200\nDEFAULT linux\nPROMPT 0\nTIMEOUT 1\nLABEL linux\n KERNEL vmlinuz\n"
                                       f" INITRD initrd.gz\n APPEND {command_line(deaf)}\n")
    shutil.copy(kernel, work / "vmlinuz")
    run("sfdisk", "-q", path, input=f"label: dos\n{BOOT_START // SECTOR},64M,c,*\n,{DATA_BYTES // SECTOR},83\n")
    run("mkfs.vfat", "--invariant", "-F", "32", "-s", "1", "--offset", BOOT_START // SECTOR, path, BOOT_BYTES // 1024)
    run("mcopy", "-i", f"{path}@@{BOOT_START}", work / "vmlinuz", work / "initrd.gz", work / "syslinux.cfg", "::", env=environment)
    run("syslinux", "-t", BOOT_START, "--install", path, env=environment)
    with open(path, "r+b") as disk:
        disk.write(pathlib.Path("/usr/lib/syslinux/mbr/mbr.bin").read_bytes()[:440])


def put_uefi_boot(path, work, kernel, deaf, environment):
    """A unified kernel image where the firmware looks for it by itself."""
    (work / "cmdline").write_text(command_line(deaf))
    sections = []
    for name, file, address in (("cmdline", work / "cmdline", 0x30000), ("linux", kernel, 0x2000000),
                                ("initrd", work / "initrd.gz", 0x4000000)):
        sections += ["--add-section", f".{name}={file}", "--change-section-vma", f".{name}={address:#x}"]
    run("objcopy", *sections, "/usr/lib/systemd/boot/efi/linuxx64.efi.stub", work / "uki.efi")
    run("sfdisk", "-q", path, input=f"label: gpt\n{BOOT_START // SECTOR},64M,U\n,{DATA_BYTES // SECTOR},L\n")
    run("mkfs.vfat", "--invariant", "-F", "32", "-s", "1", "--offset", BOOT_START // SECTOR, path, BOOT_BYTES // 1024)
    run("mmd", "-i", f"{path}@@{BOOT_START}", "::EFI", "::EFI/BOOT", env=environment)
    run("mcopy", "-i", f"{path}@@{BOOT_START}", work / "uki.efi", "::EFI/BOOT/BOOTX64.EFI", env=environment)


def build(path, second=None, *, firmware="bios", deaf=False):
    """Makes the first disk, and the second (all zeros) when it is named. No records yet."""
    path = str(path)
    tree = kernel_tree()
    (kernel,) = tree.glob("boot/vmlinuz-*")
    environment = dict(os.environ, MTOOLS_SKIP_CHECK="1")
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        make_initrd(tree, work / "initrd.gz", INIT, MODULES + ["button", "evdev"])
        with open(path, "wb") as disk:
            disk.truncate(SIZE)
        (put_uefi_boot if firmware == "uefi" else put_bios_boot)(path, work, kernel, deaf, environment)
    run("mkfs.ext4", "-q", "-F", "-U", DATA_UUID, "-E", f"offset={DATA_START}", path, f"{DATA_BYTES >> 10}k")
    if second is not None:
        with open(second, "wb") as disk:
            disk.truncate(SECOND_SIZE)


def said(console):
    """What stands behind the mark on each whole line of a console's text."""
    lines = console.replace("\r", "").split("\n")[:-1]
    return [line[len(MARK) + 1:] for line in lines if line.startswith(MARK)]


def acknowledged(console):
    """The numbers of the acknowledged records, in order."""
    return [int(word) for word in said(console) if word.isdigit()]


def starts(console):
    """With which number each boot began."""
    return [int(word.split()[1]) for word in said(console) if word.startswith("start ")]


def check_filesystem(image):
    """e2fsck of the data partition of a raw image, on a copy: the journal is replayed as the next mount would; besides that, preening
    only sets right the free counts that every mount counts anew. Returns the records as text."""
    with tempfile.TemporaryDirectory(dir=pathlib.Path(image).parent) as work:
        # Cut out: e2fsck forgets an offset when it opens the file system again after the journal's replay.
        partition = pathlib.Path(work) / "partition"
        run("dd", f"if={image}", f"of={partition}", "bs=1M", f"skip={DATA_START >> 20}", f"count={DATA_BYTES >> 20}", "conv=sparse")
        check = subprocess.run(["e2fsck", "-fp", partition], capture_output=True, text=True)
        if check.returncode > 1:
            raise AssertionError(f"e2fsck of {image}: {check.returncode}\n{check.stdout}{check.stderr}")
        return run("debugfs", "-R", "cat /records", partition)


def expect_records(image, at_least, second=None):
    """Fails unless the raw image has an ext4 without faults with all records up to `at_least` (a number), whole and in order, and
    the second disk's image has the same. Returns the number of records."""
    content = check_filesystem(image)
    records = content.splitlines()
    expected = [f"record {number:08d}" for number in range(len(records))]
    if records != expected:
        wrong = next(number for number, (found, right) in enumerate(zip(records, expected)) if found != right)
        raise AssertionError(f"{image}: record {wrong} is {records[wrong]!r}")
    if len(records) <= at_least:
        raise AssertionError(f"{image}: {len(records)} records, but record {at_least} was acknowledged")
    if second is not None:
        with open(second, "rb") as disk:
            for number in range(at_least + 1):
                disk.seek(number * 512)
                if (found := disk.read(RECORD)) != f"record {number:08d}\n".encode():
                    raise AssertionError(f"{second}: record {number} is {found!r}")
    return len(records)
