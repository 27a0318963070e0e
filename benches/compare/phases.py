"""The measurements over the wire, in the order of a run: each takes the arms and leaves its figures in `arm.out`.

Servers take turns, so that a slow minute of the machine hits all of them; of several runs the one with the median counts.
"""

import statistics
import sys
import time

import data
import pgcopy
import servers
from arms import lowest

BARS = (0.95, 0.99)
CLIENTS = (1, 2)
TARGETS = (0.9, 0.95, 0.99)
# Thousandths of the rows: 50 %, 10 %, 1 %, 0.1 %.
SELECTIVITIES = (500, 100, 10, 1)
FILTER_BAR = 0.95
# With these many queries a filter is measured, the most that a server answers in time.
FILTER_QUERIES = (1000, 300, 100, 30, 10)
# Thousandths by `scattered`. 1 % is deleted and the same inserted again; of the first 80 % a fifth is deleted and as many
# others are inserted.
REINSERTED = (500, 510)
CHURN_FIRST, CHURN_DELETED, CHURN_LATE = (0, 800), (0, 160), (800, 960)
# Larger sets are watched while they are built, every so often; smaller ones in a build of their own that is not timed.
WATCHED_ROWS = 200_000
WATCH_SECONDS = 2.0


def talk(words):
    print(words, file=sys.stderr, flush=True)


def sites_of(arms):
    return list(dict.fromkeys(arm.site for arm in arms))


def in_turns(arms, repeat, measure):
    """Runs a measurement on each arm in turn; the runs of each that gave something."""
    found = {arm: [] for arm in arms}
    for _ in range(repeat):
        for arm in arms:
            report = measure(arm)
            if report is not None:
                found[arm].append(report)
    return {arm: reports for arm, reports in found.items() if reports}


def median_of(reports):
    """The run whose rate is the median, with the rates of all."""
    chosen = sorted(reports, key=lambda report: report["per_second"])[len(reports) // 2]
    return {**chosen, "all_per_second": [round(report["per_second"], 1) for report in reports]}


def load_and_build(options, arms, files):
    """COPY into a new table, then every index on it, `--build-repeat` times; then how much memory and disk they take."""
    copies, builds = {site: [] for site in sites_of(arms)}, {arm: [] for arm in arms}
    small = arms[0].dataset.rows <= WATCHED_ROWS
    for turn in range(options.build_repeat):
        for site in sites_of(arms):
            copies[site].append(site.filled(files, site.dataset.rows))
            for arm in site.arms:
                if small or turn + 1 < options.build_repeat:
                    builds[arm].append(arm.build())
                else:
                    builds[arm].append(watched(arm, WATCH_SECONDS))
                talk(f"  {arm.title:16} COPY {copies[site][-1]:7.2f} s  CREATE INDEX {builds[arm][-1]:7.2f} s")
    for arm in arms:
        arm.out |= {"build_s": statistics.median(builds[arm]), "build_all_s": builds[arm]}
        if small:
            watched(arm, servers.SAMPLE_SECONDS)
    for site in sites_of(arms):
        site.out |= {"copy_s": statistics.median(copies[site]), "copy_all_s": copies[site]}
        began = time.monotonic()
        site.settle()
        site.out["settle_s"] = time.monotonic() - began
        talk(f"  {site.server.name:16} settled in {site.out['settle_s']:.2f} s")
        site.out["table_bytes"] = site.server.table_bytes()
        for arm in site.arms:
            arm.out["index_bytes"] = site.server.index_bytes(arm.index)
            if site.server.knn_settings:
                arm.check_used()


def watched(arm, every):
    """A build while its server's memory is looked at; seconds."""
    arm.out["memory_before_build_bytes"] = arm.server.memory()
    with servers.peak_memory(arm.server, every) as peak:
        seconds = arm.build()
    arm.out["memory_peak_build_bytes"] = peak[0]
    return seconds


def curves(options, arms):
    """Recall and speed by effort, and the least effort for each bar."""
    for arm in arms:
        def measure(effort):
            report = arm.knn(effort, seconds=min(2, options.seconds))
            talk(f"  {arm.title:16} effort {effort:4}  recall {report['recall']:.4f}  {report['per_second']:9.0f}/s")
            return report

        arm.out["curve"], reached = lowest(measure, BARS)
        arm.out["effort"] = {str(bar): effort for bar, effort in reached.items()}


def at_the_bars(options, arms):
    for bar in BARS:
        for clients in CLIENTS:
            def run(arm):
                effort = arm.out["effort"].get(str(bar))
                return effort and arm.knn(effort, clients=clients)

            for arm, reports in in_turns(arms, options.repeat, run).items():
                arm.out.setdefault("at", {}).setdefault(str(bar), {})[str(clients)] = report = median_of(reports)
                talk(f"  {arm.title:16} recall >= {bar}, {clients} client(s): {report['per_second']:9.0f}/s, "
                     f"p99 {report['p99_us']:.0f} us, effort {report['effort']}")


def round_trips(options, arms):
    for clients in CLIENTS:
        for site, reports in in_turns(sites_of(arms), options.repeat, lambda site: site.ping(clients)).items():
            site.out.setdefault("ping", {})[str(clients)] = median_of(reports)


def targets(options, arms):
    """`sepal.target_recall`, where a server knows it: what is asked for, and what comes."""
    for arm in arms:
        if not arm.definition.server.startswith("sepal"):
            continue
        try:
            arm.site.sql("SHOW sepal.target_recall")
        except RuntimeError:
            talk(f"*** {arm.title} does not know sepal.target_recall: left out")
            continue
        for target in TARGETS:
            settings = [f"SET sepal.target_recall = {target}"]
            _, reports = in_turns([arm], options.repeat, lambda arm: arm.knn(None, settings=settings)).popitem()
            arm.out.setdefault("target", {})[str(target)] = report = median_of(reports)
            talk(f"  {arm.title:16} target {target}: recall {report['recall']:.4f} at {report['per_second']:.0f}/s")


def filters(options, arms):
    """Each filter at recall@k >= 0.95, for each arm the least effort that reaches it; PostgreSQL by iterative scans, and
    then as its planner chooses with B-trees on the columns."""
    dataset = arms[0].dataset
    wanted = [dataset.below(column, share) for column in ("scattered", "region") for share in SELECTIVITIES]
    wanted.append(dataset.least_common_label())
    wanted = [rows for rows in wanted if rows.mask.sum() >= options.k]
    if options.filters:
        unknown = set(options.filters) - {rows.name for rows in wanted}
        if unknown:
            raise RuntimeError(f"no such filter: {', '.join(unknown)}; there are {', '.join(rows.name for rows in wanted)}")
        wanted = [rows for rows in wanted if rows.name in options.filters]
    dataset.truths(wanted)
    for rows in wanted:
        for arm in arms:
            arm.out.setdefault("filters", {})[rows.name] = filtered(options, arm, rows)

        def run(arm):
            found = arm.out["filters"][rows.name]
            return found["effort"] and arm.knn(found["effort"], rows, queries=found["queries"],
                                               seconds=min(3, options.seconds))

        for arm, reports in in_turns(arms, options.repeat, run).items():
            found = arm.out["filters"][rows.name]
            found["at"] = report = median_of(reports)
            talk(f"  {arm.title:16} {rows.condition:16} recall {report['recall']:.4f}  {report['per_second']:9.1f}/s, "
                 f"{report.get('short', 0)} LIMITs not filled, effort {report['effort']}")
    for arm in arms:
        if arm.key == "pgvector-16-64":
            as_planned(options, arm, wanted)


def filtered(options, arm, rows):
    """A sweep with as many queries as are answered in `--patience`."""
    first = arm.knn(arm.options.k, rows, queries=FILTER_QUERIES[-1], seconds=1, warm_up=0)
    queries = next((count for count in FILTER_QUERIES if count / first["per_second"] <= options.patience),
                   FILTER_QUERIES[-1])
    curve, reached = lowest(lambda effort: arm.knn(effort, rows, queries=queries, seconds=1, warm_up=0), (FILTER_BAR,))
    return {"condition": rows.condition, "share": rows.share, "queries": curve[0]["queries"], "curve": curve,
            "effort": reached.get(FILTER_BAR)}


def as_planned(options, arm, wanted):
    for column in ("scattered", "region", "label"):
        arm.site.sql(f"CREATE INDEX items_{column} ON items ({column})")
    arm.site.sql("ANALYZE items")
    for rows in wanted:
        found = arm.out["filters"][rows.name]
        if found["effort"]:
            settings = [setting for setting in arm.settings(found["effort"], rows) if "enable_seqscan" not in setting]
            found["as_planned"] = arm.knn(found["effort"], rows, queries=found["queries"], settings=settings,
                                          seconds=min(3, options.seconds))
    for column in ("scattered", "region", "label"):
        arm.site.sql(f"DROP INDEX items_{column}")


def between(dataset, first, last):
    values = dataset.scattered
    return data.Rows(f"scattered-{first}-{last}", f"scattered >= {first} AND scattered < {last}",
                     (values >= first) & (values < last))


def files_of(arm, rows):
    return pgcopy.write(arm.site.folder, rows.name, arm.dataset, rows.mask.nonzero()[0])


def remove(files):
    for file in files:
        file.unlink()


def reinserted(options, arms):
    """1 % deleted and inserted again, at the effort of each bar: as it was before, at once, and once tidied up."""
    rows = between(arms[0].dataset, *REINSERTED)
    files = files_of(arms[0], rows)

    def look(when):
        for arm in arms:
            for bar, effort in arm.out["effort"].items():
                report = arm.knn(effort, seconds=min(3, options.seconds))
                arm.out.setdefault("reinserted", {}).setdefault(bar, {})[when] = report

    look("before")
    for site in sites_of(arms):
        site.sql(f"DELETE FROM items WHERE {rows.condition}")
        site.copy(files)
    look("at_once")
    for site in sites_of(arms):
        site.tidy()
    look("tidied")
    remove(files)


def churned(options, arms):
    """A fifth of the rows deleted and as many others inserted, beside a fresh build over the rows that are there then."""
    dataset = arms[0].dataset
    first, deleted, late = (between(dataset, *span) for span in (CHURN_FIRST, CHURN_DELETED, CHURN_LATE))
    final = between(dataset, CHURN_DELETED[1], CHURN_LATE[1])
    # Not a filter here: these are the rows that the table holds.
    answers = data.Rows(final.name, final.condition, final.mask)
    dataset.truths([answers])
    files = {rows.name: files_of(arms[0], rows) for rows in (first, late, final)}

    def look(arm, effort):
        return whole_table(arm, answers, effort, min(3, options.seconds))

    for site in sites_of(arms):
        fill(site, files[final.name], final)
        for arm in site.arms:
            curve, reached = lowest(lambda effort: look(arm, effort), (BARS[0],))
            effort = reached.get(BARS[0], curve[-1]["effort"])
            arm.out["churned"] = {"fresh": next(report for report in curve if report["effort"] == effort)}
        fill(site, files[first.name], first)
        site.sql(f"DELETE FROM items WHERE {deleted.condition}")
        site.copy(files[late.name])
        for when in ("at_once", "tidied"):
            if when == "tidied":
                site.tidy()
            for arm in site.arms:
                arm.out["churned"][when] = report = look(arm, arm.out["churned"]["fresh"]["effort"])
                talk(f"  {arm.title:16} a fifth replaced, {when}: recall {report['recall']:.4f}, fresh "
                     f"{arm.out['churned']['fresh']['recall']:.4f}")
    for each in files.values():
        remove(each)


def fill(site, files, rows):
    site.filled(files, int(rows.mask.sum()))
    for arm in site.arms:
        arm.build()
    site.settle()


def whole_table(arm, answers, effort, seconds):
    """A query without a condition over a table that holds just the rows of `answers`."""
    truth = arm.dataset.truths([answers])[answers.name]
    arm.server.choose_index(arm.index)
    report = arm.site.load("knn", arm.settings(effort, data.ALL), sql=arm.query(data.ALL), queries=arm.dataset.queries_path,
                           dim=arm.dataset.dimensions, truth=truth, k=arm.options.k, seconds=seconds, allow_short=1)
    return {"effort": effort, **report}
