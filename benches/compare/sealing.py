#!/usr/bin/env python3
"""What sealing costs: the store with its cipher beside the same store with none, in turns. See README.md.

Builds `benches/sealing` twice, the second time with the feature `null-cipher`, which no program is built with.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
BAR = 0.9
MEASURED = {
    "copy_in": "ingest: COPY in, CHECKPOINT",
    "copy_out": "scan: COPY out",
    "scan": "scan: exact search of all rows",
    "store_in": "the storage engine alone, in",
    "store_out": "the storage engine alone, out",
}


def build(profile, features, into):
    command = ["cargo", "bench", "--workspace", "--bench", "sealing", "--no-run", "--message-format=json", "--profile", profile]
    if features:
        command += ["--features", features]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    built = [one["executable"] for one in found if one.get("executable") and one["target"]["name"] == "sealing"]
    # Cargo gives both builds names of their own; a copy outlives the next one anyway.
    shutil.copy(built[-1], into)
    return into


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--profile", default="release")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sepal-sealing-") as work:
        work = pathlib.Path(work)
        sealed = build(options.profile, None, work / "sealed")
        plain = build(options.profile, "sepal-benches/null-cipher", work / "plain")
        environment = {"SEPAL_BENCH_DIR": str(work), **os.environ}
        found = {sealed: [], plain: []}
        for _ in range(options.repeat):
            for binary, reports in found.items():
                done = subprocess.run([binary], env=environment, capture_output=True, text=True, check=True)
                reports.append(json.loads(done.stdout))
        if not found[sealed][0]["sealed"] or found[plain][0]["sealed"]:
            raise SystemExit("the two builds are not what they should be")
        megabytes = found[sealed][0]["bytes"] / 1e6
        print(f"{'':34}{'sealed [MB/s]':>14}{'no cipher':>12}{'ratio':>8}   bar >= {BAR}")
        for what, title in MEASURED.items():
            rates = [megabytes / statistics.median(report[what] for report in found[binary]) for binary in (sealed, plain)]
            print(f"{title:34}{rates[0]:14,.0f}{rates[1]:12,.0f}{rates[0] / rates[1]:8.2f}")


if __name__ == "__main__":
    main()
