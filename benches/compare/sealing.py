#!/usr/bin/env python3
"""What sealing costs: Sepal with its cipher beside the same Sepal with none, in turns. See README.md.

Builds `benches/sealing` and `engine/storage/benches/sealing.rs` twice, the second time with the feature `null-cipher`,
which no program is built with.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
BAR = 0.9
# Memory that was given back costs page faults when it is wanted again, and on a virtual machine a fetch from its host: as
# much as everything that is measured here, and by chance now in one run, now in the other. So both keep theirs.
KEEP_MEMORY = ":".join((
    "glibc.malloc.arena_max=1",
    "glibc.malloc.mmap_max=0",
    "glibc.malloc.trim_threshold=17179869184",
))
MEASURED = {
    "copy_in": "ingest: COPY in, CHECKPOINT",
    "copy_out": "scan: COPY out",
    "scan": "scan: exact search of all rows",
    "store_in": "the storage engine alone, in",
    "store_out": "the storage engine alone, out",
}


def build(profile, benches, features, into):
    command = ["cargo", "bench", "--workspace", "--no-run", "--message-format=json", "--profile", profile]
    for bench in benches:
        command += ["--bench", bench]
    if features:
        command += ["--features", features]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found = {}
    for one in map(json.loads, done.stdout.splitlines()):
        if one.get("executable") and one["target"]["name"] in benches:
            found[one["target"]["name"]] = one["executable"]
    # Cargo gives both builds names of their own; copies outlive the next one anyway.
    into.mkdir()
    return [shutil.copy(found[bench], into / bench) for bench in benches]


def measured(binaries, environment):
    report = {}
    for binary in binaries:
        done = subprocess.run([binary], env=environment, capture_output=True, text=True, check=True)
        report |= json.loads(done.stdout)
    return report


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--profile", default="release")
    parser.add_argument("--engine-only", action="store_true", help="only the storage engine: builds much sooner")
    options = parser.parse_args()
    benches = ["store_sealing"] + ([] if options.engine_only else ["sealing"])
    with tempfile.TemporaryDirectory(prefix="sepal-sealing-") as work:
        work = pathlib.Path(work)
        arms = {
            True: build(options.profile, benches, None, work / "sealed"),
            False: build(options.profile, benches, "sepal-storage/null-cipher", work / "plain"),
        }
        environment = {"SEPAL_BENCH_DIR": str(work), "GLIBC_TUNABLES": KEEP_MEMORY, **os.environ}
        found = {sealed: [] for sealed in arms}
        for number in range(options.repeat):
            for sealed, binaries in arms.items():
                found[sealed].append(measured(binaries, environment))
            print(f"run {number + 1} of {options.repeat}", file=sys.stderr, flush=True)
        if any(report["sealed"] != sealed for sealed, reports in found.items() for report in reports):
            raise SystemExit("the two builds are not what they should be")
        megabytes = found[True][0]["bytes"] / 1e6
        print(f"{'':34}{'sealed [MB/s]':>14}{'no cipher':>12}{'ratio':>8}   bar >= {BAR}")
        for what, title in MEASURED.items():
            if what not in found[True][0]:
                continue
            rates = [megabytes / statistics.median(report[what] for report in found[sealed]) for sealed in (True, False)]
            print(f"{title:34}{rates[0]:14,.0f}{rates[1]:12,.0f}{rates[0] / rates[1]:8.2f}")


if __name__ == "__main__":
    main()
