"""Figures of kernels and stages: by Google Benchmark, random interleaving, medians over its repetitions."""
import json
from statistics import median

import bed as beds
import fio
from measure import Contestant, Failed, Sample, timed
from rows import figure, must, rate_ceiling, rate_row, row, target


def google_benchmark(bed, program, pattern):
    """{benchmark's name: {"rate": bytes per second, "samples", "counters"}} over the repetitions."""
    path = bed.beside(program)
    words = [path, f"--benchmark_filter={pattern}", "--benchmark_format=json", f"--benchmark_repetitions={bed.sizes.rounds}",
             "--benchmark_enable_random_interleaving=true", f"--benchmark_min_time={bed.sizes.benchmark_s}"]
    _, _, out, *_ = timed(words)
    result = json.JSONDecoder().raw_decode(out[out.index("{\n"):])[0]
    found = {}
    for one in result["benchmarks"]:
        if one.get("error_occurred"):
            raise Failed(f"{program}: {one['name']}: {one.get('error_message')}")
        if one.get("run_type") == "aggregate":
            continue
        entry = found.setdefault(one["run_name"].replace("/real_time", ""), {"rates": [], "cpu": [], "bytes": 0})
        entry["rates"].append(one["bytes_per_second"])
        entry["cpu"].append(one.get("cpu_s_per_GB", 0))
        entry["bytes"] += round(one["bytes_per_second"] * one["real_time"] / 1e9 * one["iterations"])
    if not found:
        raise Failed(f"{program} has no benchmark that matches {pattern}")
    return found


def kernel_row(name, ours, bare, what, aims):
    rate = median(ours["rates"]) / 1e9
    ceiling = {"what": what, "value": median(bare["rates"]) / 1e9}
    return row(name, "GB/s per core", rate, ours["bytes"], ceiling=ceiling, targets=[aim(rate, ceiling["value"]) for aim in aims],
               cpu_s_per_gb=1 / rate, samples=[value / 1e9 for value in ours["rates"]])


@figure("sha256", of_the_program=False)
def sha256(bed):
    found = google_benchmark(bed, "checksum_bench", "^sha256_(multi_buffer|bare_job_loop|one_buffer)/128$")
    one = median(found["sha256_one_buffer/128"]["rates"]) / 1e9
    return [kernel_row("sha256", found["sha256_multi_buffer/128"], found["sha256_bare_job_loop/128"],
                       "multi-buffer library in a bare loop",
                       [lambda rate, bare: target("of the bare loop", rate / bare, ">=", 0.95),
                        lambda rate, _: target("times one-buffer OpenSSL", rate / one, ">=", 1.8)])]


@figure("crc32c", of_the_program=False)
def crc32c(bed):
    found = google_benchmark(bed, "checksum_bench", "^crc32c_(ours|bare_isal)/(32768|4194304)$")
    return [kernel_row(f"crc32c {size // 1024} KiB", found[f"crc32c_ours/{size}"], found[f"crc32c_bare_isal/{size}"],
                       "ISA-L in a bare loop", [lambda rate, bare: target("of the bare loop", rate / bare, ">=", 0.9)])
            for size in (32768, 4194304)]


@figure("stream", of_the_program=False)
def stream(bed):
    """Bytes through TLS from one thread to another, both ends' CPU time; the same with frames and their CRC."""
    found = google_benchmark(bed, "transport_bench", "^(stream_over_tls/(own|openssl)|stream_of_(aead|tcp)|frames_over_tls/own)/"
                                                     "(262144|1048576)")
    bare = max(("stream_of_aead/262144", "stream_of_aead/1048576"), key=lambda name: median(found[name]["rates"]))
    openssl, tcp = found["stream_over_tls/openssl/1048576"], found["stream_of_tcp/262144"]
    ceiling = {"what": "AES-GCM over TCP in a bare loop", "value": median(found[bare]["rates"]) / 1e9,
               "cpu_s_per_gb": median(found[bare]["cpu"])}
    note = f"OpenSSL's records {median(openssl['rates']) / 1e9:.2f} GB/s, {median(openssl['cpu']):.2f} CPU s; " \
           f"TCP alone {median(tcp['rates']) / 1e9:.2f}, {median(tcp['cpu']):.2f}"
    rows = []
    for name, ours in (("stream", found["stream_over_tls/own/1048576"]), ("stream of frames", found["frames_over_tls/own/1048576"])):
        rate, cpu = median(ours["rates"]) / 1e9, median(ours["cpu"])
        targets = [target("CPU s per GB, both ends", cpu, "<=", 0.65), target("of the ceiling", rate / ceiling["value"], ">=", 0.8)]
        rows.append(row(name, "GB/s", rate, ours["bytes"], cpu_s_per_gb=cpu, ceiling=ceiling, note=note if name == "stream" else "",
                        targets=targets if name == "stream" else [], samples=[value / 1e9 for value in ours["rates"]]))
    return rows


def read_and_digest(bed, where):
    """`backhaul digest` of a disk of data: the lower ceiling of reading (fio) and digesting (a bare loop on every core)."""
    with bed.place(where) as place:
        disk = place.folder / "disk.raw"
        size = beds.make_dense(disk, bed.sizes.image)

        def cold():
            beds.drop_cache(disk)

        def ours():
            wall, cpu, out, *_ = timed([beds.harness.program(), "digest", disk, "--json"])
            return Sample(wall, cpu, size if "root_digest" in out else 0)

        def bare_loops():
            cores = google_benchmark(bed, "checksum_bench", "^sha256_bare_on_all_cores")
            return Sample(size / median(next(iter(cores.values()))["rates"]), 0, size)

        found = place.alternate([Contestant("ours", ours, cold, ours=True),
                                 Contestant("read", lambda: fio.run(place.folder, [fio.job("read", disk, "read", size)], size), cold),
                                 Contestant("digest", bare_loops, most=1)])
    both = [rate_ceiling(name, found[name], size) for name in ("read", "digest")]
    ceiling, note = {"what": "the lower of fio's read and SHA-256 on all cores"}, "cold" if where == "disk" else "in memory"
    if all("value" in one for one in both):
        ceiling["value"] = min(one["value"] for one in both)
        ceiling["what"] += " (" + ", ".join(f"{one['value']:.2f}" for one in both) + ")"
        if where == "memory":  # both ceilings are of all cores: who does both has to share them
            note += f": reading costs CPU there, too; fio's read, then the loop over the same bytes: {1 / sum(1 / one['value'] for one in both):.2f}"
    else:
        ceiling["missing"] = next(one["missing"] for one in both if "missing" in one)
    made = rate_row(f"read and digest, {where}", must(found["ours"]), size, ceiling=ceiling, note=note)
    made["targets"] = [target("of the ceiling", made["ratio"], ">=", 0.9)]
    return [made]


@figure("read-digest-memory")
def read_digest_memory(bed):
    return read_and_digest(bed, "memory")


@figure("read-digest-disk")
def read_digest_disk(bed):
    return read_and_digest(bed, "disk")
