"""What the device gives to a mix of reads and writes: fio with io_uring and O_DIRECT, all jobs at once."""
import json

import bed as beds
from measure import Failed, Sample, timed

KIB, MIB = 1 << 10, 1 << 20


def job(name, file, way, size, block=MIB, depth=16, region=None):
    """One job's section. `way` is fio's rw; `size` bytes are moved, within `region` bytes of the file."""
    lines = [f"[{name}]", f"filename={file}", f"rw={way}", f"bs={block}", f"iodepth={depth}", f"size={region or size}",
             f"io_size={size}", "fallocate=none", "overwrite=0", "invalidate=1", "randrepeat=0"]
    if "write" in way:
        lines.append("end_fsync=1")
    return "\n".join(lines) + "\n"


def run(folder, jobs, moved):
    """Runs the jobs together; the Sample's wall time is that of the longest job, without fio's own start."""
    beds.need("fio")
    path = folder / "mix.fio"
    path.write_text("[global]\nioengine=io_uring\ndirect=1\nthread=1\nrefill_buffers=0\n" + "".join(jobs))
    _, cpu, out, *_ = timed(["fio", "--output-format=json", path])
    start = out.find("{")
    if start < 0:
        raise Failed(f"fio said nothing: {out[-1000:]}")
    result = json.JSONDecoder().raw_decode(out[start:])[0]
    wall = 0.0
    for one in result["jobs"]:
        if one["error"]:
            raise Failed(f"fio: job {one['jobname']}: error {one['error']}")
        wall = max(wall, one["job_runtime"] / 1000)
    return Sample(max(wall, 1e-3), cpu, moved)
