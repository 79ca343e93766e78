"""PostgreSQL of the outside lab, over TLS: tables, a role that may only read, and one line of JSON when it is ready."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

CONFIG = json.loads(Path("/srv/config.json").read_text())
HOME = Path("/var/lib/postgresql")
SETTINGS = {"listen_addresses": "*", "ssl": "on", "ssl_cert_file": "/run/tls/server.pem", "log_connections": "on",
            "ssl_key_file": "/run/tls/server.pem", "unix_socket_directories": "/run/postgresql"}  # fmt: skip
RULES = "local all postgres peer\nhostssl all all 0.0.0.0/0 scram-sha-256\n"
TABLES = f"""
CREATE TABLE sales (product text, amount int);
INSERT INTO sales VALUES ('apples', 3), ('pears', 5), ('apples', 4);
CREATE ROLE reader LOGIN PASSWORD '{CONFIG["password"]}';
GRANT pg_read_all_data TO reader;
CREATE TABLE notes (text text PRIMARY KEY, n int);
CREATE ROLE writer LOGIN PASSWORD '{CONFIG["password"]}';
CREATE TABLE labels (product text PRIMARY KEY, category text, confidence float);
GRANT SELECT, INSERT, UPDATE, DELETE ON notes, labels TO writer;
GRANT CREATE, USAGE ON SCHEMA public TO writer;
"""


def main() -> None:
    """Make a cluster, start it, fill it."""
    (binaries,) = Path("/usr/lib/postgresql").glob("*/bin")
    data, tls = HOME / "data", Path("/run/tls")
    for folder in (tls, Path("/run/postgresql")):
        folder.mkdir(exist_ok=True)
        shutil.chown(folder, "postgres")
    shutil.copy("/srv/server.pem", tls / "server.pem")
    (tls / "server.pem").chmod(0o600)
    shutil.chown(tls / "server.pem", "postgres")
    sql(["initdb", "-D", data, "--auth-local", "peer", "--no-instructions"], binaries)
    (data / "pg_hba.conf").write_text(RULES)
    words = [word for name, value in SETTINGS.items() for word in ("-c", f"{name}={value}")]
    subprocess.Popen([binaries / "postgres", "-D", data, *words], user="postgres", env={"LANG": "C.UTF-8"}, cwd=HOME)
    while subprocess.run([binaries / "pg_isready", "-q", "-h", "/run/postgresql"], check=False).returncode:
        time.sleep(0.1)
    sql(["psql", "-h", "/run/postgresql", "-q", "-c", "CREATE DATABASE shop"], binaries)
    sql(["psql", "-h", "/run/postgresql", "-q", "shop", "-c", TABLES], binaries)
    print(json.dumps({"ready": True}), flush=True)
    while True:
        time.sleep(1)
        said = subprocess.run(
            [binaries / "psql", "-h", "/run/postgresql", "-At", "shop", "-c", "SELECT count(*) FROM sales"],
            user="postgres", cwd=HOME, capture_output=True, text=True, check=False,
        ).stdout.strip()  # fmt: skip
        print(json.dumps({"rows": int(said)}), flush=True)


def sql(words: list[str | Path], binaries: Path) -> None:
    """Run a program of PostgreSQL as its own user."""
    command, env = [binaries / words[0], *words[1:]], {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
    subprocess.run(command, user="postgres", cwd=HOME, check=True, stdout=subprocess.DEVNULL, env=env)


if __name__ == "__main__":
    main()
