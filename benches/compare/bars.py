"""What must be shown, beside what was measured: a pure function of a run's JSON.

Where pgvector or hnswlib ran with several settings, the better figure of them counts, each bar for itself.
"""

import dataclasses

FILTER_BAR = 0.95
# What is measured is no exact number: 1,000 queries of k = 10.
RECALL_SLACK = 0.01


@dataclasses.dataclass
class Bar:
    what: str
    need: str
    ours: str
    theirs: str
    ratio: float | None
    # True, False, or None: not measured.
    passed: bool | None

    @property
    def verdict(self):
        return {True: "pass", False: "FAIL", None: "not measured"}[self.passed]


def of(result):
    """All bars of one run, those that do not belong to its data set left out."""
    clustered = result["data"]["kind"] == "clustered"
    found = []
    wire, inside = result.get("wire", {}), result.get("in_process", {})
    ours = wire.get("sepal")
    rivals = [arm for key, arm in wire.items() if key.startswith("pgvector-")]
    if ours:
        found += speed(ours, rivals, clustered) + build(ours, rivals, clustered)
        found += filters(ours, rivals) + churn(ours) + targets(ours)
    if inside and not clustered:
        libraries = [each for key, each in inside.items() if key.startswith("hnswlib-")]
        for bar in ("0.95", "0.99"):
            found.append(ratio(f"in-process QPS, one thread, recall {bar} ÷ hnswlib's", at(inside.get("sepal"), bar, "1"),
                               [at(each, bar, "1") for each in libraries], at_least=4))
    return found


def speed(ours, rivals, clustered):
    wanted = [("0.95", "1", 12), ("0.99", "1", 15), ("0.95", "2", 10), ("0.99", "2", 10)]
    if clustered:
        wanted = [("0.95", "1", 10)]
    out = []
    for bar, clients, need in wanted:
        what = f"wire QPS, recall {bar}, {clients} client{'s' if clients != '1' else ''} ÷ pgvector's"
        out.append(ratio(what, at(ours, bar, clients), [at(rival, bar, clients) for rival in rivals], at_least=need))
    if not clustered:
        for bar in ("0.95", "0.99"):
            for clients in ("1", "2"):
                what = f"wire p99 [µs], recall {bar}, {clients} client{'s' if clients != '1' else ''} ÷ pgvector's"
                out.append(ratio(what, at(ours, bar, clients, "p99_us"),
                                 [at(rival, bar, clients, "p99_us") for rival in rivals], at_most=0.15))
    return out


def build(ours, rivals, clustered):
    out = [ratio("index build [s] ÷ pgvector's", ours.get("build_s"), [rival.get("build_s") for rival in rivals],
                 at_most=0.15)]
    if clustered:
        out.append(ratio("index memory [MiB] ÷ pgvector's", mib(ours.get("index_bytes")),
                         [mib(rival.get("index_bytes")) for rival in rivals], at_most=0.25))
    return out


def mib(count):
    return None if count is None else count / 2**20


def filters(ours, rivals):
    out = []
    for name, found in ours.get("filters", {}).items():
        report = found.get("at")
        what = f"filter {found['condition']} ({100 * found['share']:.2g} %)"
        if report is None:
            out.append(Bar(f"{what}: recall", f"≥ {FILTER_BAR}", "never reached", "", None, False))
            continue
        short = report.get("short")
        filled = all(point.get("short") == 0 for point in [report, *found["curve"]])
        words = {True: "yes", False: "no"}[filled] if short is not None else "unknown"
        out.append(Bar(f"{what}: LIMIT filled", "always", words, "", None, None if short is None else filled))
        out.append(Bar(f"{what}: recall", f"≥ {FILTER_BAR}", f"{report['recall']:.4f}", "", None,
                       report["recall"] >= FILTER_BAR))
        theirs = [rival["filters"][name] for rival in rivals if name in rival.get("filters", {})]
        if theirs and not any("at" in rival for rival in theirs):
            out.append(Bar(f"{what}: QPS ÷ pgvector's", "≥ 10", number(report["per_second"]), "never that recall", None,
                           True))
        else:
            out.append(ratio(f"{what}: QPS ÷ pgvector's", report["per_second"],
                             [rival["at"]["per_second"] for rival in theirs if "at" in rival], at_least=10))
    return out


def churn(ours):
    found = ours.get("churned")
    if not found:
        return []
    worst = min((found[when]["recall"] for when in ("at_once", "tidied") if when in found), default=None)
    fresh = found["fresh"]["recall"]
    passed = None if worst is None else worst >= fresh - RECALL_SLACK
    return [Bar("recall after 20 % were replaced, beside a fresh build", "≥ −0.01", f"{worst:.4f}" if worst else "-",
                f"{fresh:.4f}", None, passed)]


def targets(ours):
    return [Bar(f"recall with sepal.target_recall = {target}", "≥ −0.01", f"{found['recall']:.4f}", target, None,
                found["recall"] >= float(target) - RECALL_SLACK) for target, found in ours.get("target", {}).items()]


def at(arm, bar, clients, name="per_second"):
    return arm and arm.get("at", {}).get(bar, {}).get(clients, {}).get(name)


def ratio(what, ours, theirs, at_least=None, at_most=None):
    """Beside the best of theirs: the most where more is better, else the least."""
    need = f"≥ {at_least}" if at_least is not None else f"≤ {at_most}"
    theirs = [value for value in theirs if value]
    if ours is None or not theirs:
        best = "-" if not theirs else number(max(theirs) if at_least else min(theirs))
        return Bar(what, need, "-" if ours is None else number(ours), best, None, None)
    best = max(theirs) if at_least is not None else min(theirs)
    found = ours / best
    return Bar(what, need, number(ours), number(best), found, found >= at_least if at_least is not None else found <= at_most)


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
