"""What is measured over the wire: a `Site` is a server with the table, an `Arm` one index on it and the knob it is turned by.

Several arms may share a site: then queries are allowed one index at a time (`Server.choose_index`). All measuring is done by
`wire_load`, the same for everybody.
"""

import dataclasses
import json
import os
import subprocess

import data
import pgcopy

OPERATORS = {"cosine": "<=>", "l2": "<->", "ip": "<#>"}
GRID = (10, 14, 20, 28, 40, 56, 80, 112, 160, 224, 320, 448, 640, 1000)
HNSW_EFFORT = ("SET hnsw.ef_search = {}",)
# Not one query may take longer than this on average, or the rest of a sweep is left out.
ENDLESS_S = 5


@dataclasses.dataclass(frozen=True)
class Definition:
    title: str
    server: str
    method: str
    options: str
    # Statements that set the effort.
    effort: tuple


DEFINITIONS = {
    "sepal": Definition("Sepal", "sepal", "hnsw", "", HNSW_EFFORT),
    # Another build of Sepal, of `--before`.
    "sepal-before": Definition("Sepal before", "sepal-before", "hnsw", "", HNSW_EFFORT),
    "pgvector-16-64": Definition("pgvector 16/64", "pgvector", "hnsw", "m = 16, ef_construction = 64", HNSW_EFFORT),
    "pgvector-24-200": Definition("pgvector 24/200", "pgvector", "hnsw", "m = 24, ef_construction = 200", HNSW_EFFORT),
    # As many are scored exactly as are kept: its codes alone do not reach 0.99.
    "pgvectorscale": Definition("pgvectorscale", "pgvector", "diskann", "", (
        "SET diskann.query_search_list_size = {}", "SET diskann.query_rescore = {}")),
    "paradedb": Definition("ParadeDB 16/64", "paradedb", "hnsw", "m = 16, ef_construction = 64", HNSW_EFFORT),
}


class Site:
    def __init__(self, options, dataset, server, folder):
        self.options, self.dataset, self.server, self.folder = options, dataset, server, folder
        self.out = {"version": server.version, "settings": server.settings}
        self.arms = []

    def load(self, mode, settings=(), timeout=None, **flags):
        """One run of the load generator; its report."""
        command = [self.options.wire_load, mode]
        for name, value in flags.items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        for setting in settings:
            command += ["--set", setting]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        done = subprocess.run(command, env=environment | self.server.variables, capture_output=True, text=True,
                              timeout=timeout)
        if done.returncode:
            raise RuntimeError(f"{self.server.name}: wire_load {mode} {flags}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def sql(self, text):
        return self.load("run", sql=text)

    def table(self):
        for statement in self.server.setup:
            self.sql(statement)
        self.sql("DROP TABLE IF EXISTS items")
        self.sql(pgcopy.TABLE.format(self.dataset.dimensions))

    def copy(self, files):
        """COPY, file after file; seconds."""
        reports = [self.load("copy", sql="COPY items FROM STDIN (FORMAT binary)", file=file) for file in files]
        return sum(report["seconds"] for report in reports)

    def filled(self, files, rows):
        """A new table with these rows; seconds of the COPY."""
        self.table()
        seconds = self.copy(files)
        found = int(self.server.value("SELECT count(*) FROM items"))
        if found != rows:
            raise RuntimeError(f"{self.server.name} has {found} rows of {rows}")
        return seconds

    def settle(self):
        for statement in self.server.settled:
            self.sql(statement)

    def tidy(self):
        for statement in self.server.tidied:
            self.sql(statement)

    def ping(self, clients):
        return self.load("ping", clients=clients, seconds=self.options.seconds)


class Arm:
    def __init__(self, key, definition, site):
        self.key, self.definition, self.site = key, definition, site
        self.options, self.dataset, self.server = site.options, site.dataset, site.server
        self.index = f"items_embedding_{key.replace('-', '_')}"
        self.out = {"title": definition.title, "server": definition.server, "method": definition.method,
                    "options": definition.options}
        site.arms.append(self)

    @property
    def title(self):
        return self.definition.title

    def build(self):
        """Seconds of CREATE INDEX, with whatever a server put off until then."""
        self.site.sql(f"DROP INDEX IF EXISTS {self.index}")
        options = f" WITH ({self.definition.options})" if self.definition.options else ""
        return self.site.sql(f"CREATE INDEX {self.index} ON items USING {self.definition.method} "
                             f"(embedding vector_{self.options.metric}_ops){options}")["seconds"]

    def query(self, rows):
        condition = "" if rows.mask is None else f"WHERE {rows.condition} "
        return f"SELECT id FROM items {condition}ORDER BY embedding {OPERATORS[self.options.metric]} $1 LIMIT $2"

    def settings(self, effort, rows):
        found = [statement.format(effort) for statement in self.definition.effort] if effort is not None else []
        found += self.server.knn_settings
        return found if rows.mask is None else found + self.server.filtered_settings(self.dataset.rows)

    def knn(self, effort, rows=data.ALL, clients=1, seconds=None, queries=None, settings=None, warm_up=1):
        """Recall over the first `queries` queries (all of them), then the load. `short`: how many LIMITs were not filled."""
        self.server.choose_index(self.index)
        asked, truth = self.files(rows, queries)
        report = self.site.load(
            "knn", self.settings(effort, rows) if settings is None else settings, sql=self.query(rows), queries=asked,
            dim=self.dataset.dimensions, truth=truth, k=self.options.k, clients=clients, warm_up=warm_up, allow_short=1,
            seconds=seconds or self.options.seconds,
        )
        count = len(self.dataset.queries)
        return {"effort": effort, "queries": min(queries or count, count), **report}

    def files(self, rows, queries):
        """The queries and the exact answers as files, of all or of the first few."""
        truth = self.dataset.truths([rows])[rows.name]
        if queries is None or queries >= len(self.dataset.queries):
            return self.dataset.queries_path, truth
        few = self.folder_file(f"queries-{queries}.f32", self.dataset.queries_path, queries)
        return few, self.folder_file(f"{rows.name}-{queries}.i64", truth, queries)

    def folder_file(self, name, whole, queries):
        path = self.site.folder / name
        if not path.exists():
            content = whole.read_bytes()
            path.write_bytes(content[: len(content) // len(self.dataset.queries) * queries])
        return path

    def check_used(self):
        """That PostgreSQL answers from this index at all: a figure of a scan would be worth nothing."""
        self.server.choose_index(self.index)
        operator = OPERATORS[self.options.metric]
        query = ",".join(map(str, self.dataset.queries[0].tolist()))
        plan = self.server.values("; ".join([*self.server.knn_settings, f"EXPLAIN SELECT id FROM items ORDER BY embedding "
                                             f"{operator} '[{query}]' LIMIT {self.options.k}"]))
        if not any(self.index in (line or "") for line in plan):
            raise RuntimeError(f"{self.title} does not use {self.index}: " + " / ".join(plan))


def lowest(measure, bars, grid=GRID):
    """Measures at rising effort until the highest bar is reached, then between, for the least effort of each bar.

    The reports, ascending, and bar → effort.
    """
    found = {}
    for effort in grid:
        found[effort] = measure(effort)
        if found[effort]["recall"] >= max(bars) or found[effort]["per_second"] < 1 / ENDLESS_S:
            break
    reached = {}
    for bar in bars:
        enough = [effort for effort in sorted(found) if found[effort]["recall"] >= bar]
        if not enough:
            continue
        high = enough[0]
        low = max((effort for effort in found if effort < high), default=None)
        while low is not None and high - low > max(1, low // 12):
            middle = (low + high) // 2
            found[middle] = measure(middle)
            low, high = (low, middle) if found[middle]["recall"] >= bar else (middle, high)
        reached[bar] = high
    return [found[effort] for effort in sorted(found)], reached
