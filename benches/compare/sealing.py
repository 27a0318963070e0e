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
        print(f"{'':10}{'sealed [MB/s]':>16}{'no cipher':>14}{'ratio':>8}   bar >= {BAR}")
        megabytes = found[sealed][0]["bytes"] / 1e6
        for what in ("ingest", "scan"):
            rates = [megabytes / statistics.median(report[f"{what}_s"] for report in found[binary])
                     for binary in (sealed, plain)]
            print(f"{what:10}{rates[0]:16,.0f}{rates[1]:14,.0f}{rates[0] / rates[1]:8.2f}")


if __name__ == "__main__":
    main()
