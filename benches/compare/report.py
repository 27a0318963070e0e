#!/usr/bin/env python3
"""Tables (Markdown) and plots of runs, from their JSON: `report.py RESULT.json … [--into PAGE] [--plot DIR]`.

Measures nothing and makes nothing up: what a run did not measure is a dash, and a ratio never takes figures of two runs.
`--into` writes between a page's lines `<!-- measured: begin -->` and `<!-- measured: end -->`.
"""

import argparse
import json
import pathlib
import sys

import bars

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def table(head, rows):
    out = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        out.append("| " + " | ".join("-" if cell is None else str(cell) for cell in row) + " |")
    return "\n".join(out) + "\n"


def figure(value, scale=1.0):
    if value is None:
        return None
    value /= scale
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}" if value >= 10 else f"{value:.2f}"


def markdown(result):
    about, machine = result["data"], result["machine"]
    out = [f"### {about['name']}: {about['rows']:,} × {about['dimensions']}, {about['metric']}, k = {about['k']}, "
           f"{about['queries']:,} queries\n",
           f"{result['date']}, {machine['processor']}, {machine['cpus']} processors, {machine['memory_gib']} GiB; load at the "
           f"start {machine['load']:.1f}; medians of {result['repeat']}, builds of {result['build_repeat']}; "
           f"{result['seconds']} s each; {result['transport']}.\n"]
    if result.get("sites"):
        out.append("\n".join(f"- {name}: {site['version']}" for name, site in result["sites"].items()) + "\n")
    parts = [("Bars", bar_rows(result)), ("Over the wire", wire_rows(result)), ("Servers", site_rows(result)),
             ("Recall and speed over the wire", curve_rows(result.get("wire", {}))), ("Filters", filter_rows(result)),
             ("Rows replaced", churn_rows(result)), ("In-process, one thread", inside_rows(result)),
             ("Recall and speed in-process", curve_rows(result.get("in_process", {})))]
    for title, (head, rows) in parts:
        if rows:
            out.append(f"#### {title}\n\n{table(head, rows)}")
    return "\n".join(out)


def bar_rows(result):
    return (["what", "must be", "Sepal", "the other's best", "ratio", "verdict"],
            [[bar.what, bar.need, bar.ours, bar.theirs, None if bar.ratio is None else f"{bar.ratio:.2f}", bar.verdict]
             for bar in bars.of(result)])


def speeds(arm, clients=("1",)):
    """Per bar: effort, and rate and p99 per count of clients."""
    out = []
    for bar in ("0.95", "0.99"):
        found = arm.get("at", {}).get(bar, {})
        out.append(arm.get("effort", {}).get(bar))
        for count in clients:
            report = found.get(count, {})
            out += [figure(report.get("per_second")), figure(report.get("p99_us"))]
    return out


def wire_rows(result):
    head = ["", "build s", "memory while building MiB", "index MiB"]
    for bar in ("0.95", "0.99"):
        head += [f"effort at {bar}", "QPS", "p99 µs", "QPS, 2 clients", "p99 µs"]
    return head, [[arm["title"], figure(arm.get("build_s")), figure(arm.get("memory_peak_build_bytes"), 2**20),
                   figure(arm.get("index_bytes"), 2**20), *speeds(arm, ("1", "2"))] for arm in result.get("wire", {}).values()]


def site_rows(result):
    return (["", "COPY s", "table MiB", "SELECT 1 /s", "2 clients", "memory at the end MiB"],
            [[name, figure(site.get("copy_s")), figure(site.get("table_bytes"), 2**20),
              *(figure(site.get("ping", {}).get(clients, {}).get("per_second")) for clients in ("1", "2")),
              figure(site.get("memory_bytes"), 2**20)] for name, site in result.get("sites", {}).items()])


def inside_rows(result):
    head = ["", "version", "build s", "index MiB", "memory MiB"]
    for bar in ("0.95", "0.99"):
        head += [f"effort at {bar}", "QPS", "p99 µs"]
    return head, [[each["title"], each.get("version"), figure(each.get("build_s")), figure(each.get("index_bytes"), 2**20),
                   figure(each.get("memory_bytes"), 2**20), *speeds(each)] for each in result.get("in_process", {}).values()]


def curve_rows(arms):
    return (["", "recall / QPS by effort"],
            [[arm["title"], " · ".join(f"{point['effort']}: {point['recall']:.3f} / {figure(point['per_second'])}"
                                       for point in arm["curve"])] for arm in arms.values() if "curve" in arm])


def filter_rows(result):
    rows = []
    for arm in result.get("wire", {}).values():
        for found in arm.get("filters", {}).values():
            report, planned = found.get("at", {}), found.get("as_planned", {})
            rows.append([found["condition"], f"{100 * found['share']:.2g} %", arm["title"], found["queries"], found["effort"],
                         f"{report['recall']:.4f}" if report else None, report.get("short"), figure(report.get("per_second")),
                         figure(report.get("p99_us")), figure(planned.get("per_second"))])
    rows.sort(key=lambda row: row[0])
    return ["filter", "rows", "", "queries", "effort", "recall", "LIMITs not filled", "QPS", "p99 µs",
            "QPS as planned with B-trees"], rows


def churn_rows(result):
    rows = []
    for arm in result.get("wire", {}).values():
        for bar, looks in arm.get("reinserted", {}).items():
            rows += [[arm["title"], f"1 % deleted and inserted again, effort of {bar}", *look(looks, when)]
                     for when in ("before", "at_once", "tidied")]
        rows += [[arm["title"], "20 % deleted, others inserted", *look(arm["churned"], when)]
                 for when in ("fresh", "at_once", "tidied") if when in arm.get("churned", {})]
    return ["", "", "when", "effort", "recall", "QPS", "p99 µs"], rows


def look(looks, when):
    report = looks[when]
    return (when.replace("_", " "), report["effort"], f"{report['recall']:.4f}", figure(report["per_second"]),
            figure(report["p99_us"]))


def plot(result, folder):
    """An SVG for the wire and one for in-process; the paths, none without matplotlib."""
    try:
        import matplotlib

        matplotlib.use("svg")
        from matplotlib import pyplot
    except ImportError:
        print("*** matplotlib is not installed: no plot", file=sys.stderr)
        return []
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for part, title in (("wire", "over the wire, one client"), ("in_process", "in-process, one thread")):
        arms = [arm for arm in result.get(part, {}).values() if arm.get("curve")]
        if not arms:
            continue
        picture, axes = pyplot.subplots(figsize=(8, 5))
        for arm in arms:
            points = sorted(arm["curve"], key=lambda point: point["recall"])
            axes.plot([point["recall"] for point in points], [point["per_second"] for point in points], marker="o",
                      markersize=3, label=arm["title"])
        axes.set(xlabel=f"recall@{result['data']['k']}", ylabel="queries a second", yscale="log",
                 title=f"{result['data']['name']}, {title}")
        axes.grid(True, which="both", alpha=0.3)
        axes.legend()
        paths.append(folder / f"{result['data']['name']}-{part.replace('_', '-')}.svg")
        picture.savefig(paths[-1], metadata={"Date": None}, bbox_inches="tight")
        pyplot.close(picture)
    return paths


def into(page, text):
    """Between the page's two lines; they stay."""
    content = page.read_text()
    if content.count(BEGIN) != 1 or content.count(END) != 1:
        sys.exit(f"{page} has not exactly one line {BEGIN} and one {END}")
    head, rest = content.split(BEGIN)
    page.write_text(f"{head}{BEGIN}\n\n{text.strip()}\n\n{END}{rest.split(END)[1]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="+", type=pathlib.Path)
    parser.add_argument("--markdown", type=pathlib.Path, help="write the tables there instead of printing them")
    parser.add_argument("--into", type=pathlib.Path, help="a page to put the tables in")
    parser.add_argument("--plot", type=pathlib.Path, help="a folder for plots of recall and speed")
    options = parser.parse_args()
    results = [json.loads(path.read_text()) for path in options.results]
    text = "\n".join(markdown(result) for result in results)
    if options.into:
        into(options.into, text)
    if options.markdown:
        options.markdown.write_text(text)
    elif not options.into:
        print(text)
    for path in [path for result in results for path in (plot(result, options.plot) if options.plot else [])]:
        print(path, file=sys.stderr)


if __name__ == "__main__":
    main()
