"""An MLflow server of the outside lab, over TLS, with a password: one line of JSON when it is ready."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from base64 import b64encode
from pathlib import Path

CONFIG = json.loads(Path("/srv/config.json").read_text())
AUTH = """[mlflow]
default_permission = READ
database_uri = sqlite:////tmp/auth.db
admin_username = writer
admin_password = {password}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
"""
SERVER = (
    "server", "--app-name", "basic-auth", "--host", "0.0.0.0", "--port", "443", "--workers", "1",
    "--allowed-hosts", "*",
    "--uvicorn-opts", "--ssl-keyfile /srv/server.pem --ssl-certfile /srv/server.pem",
    "--backend-store-uri", "sqlite:////tmp/registry.db",
)  # fmt: skip


def ask(method: str, path: str, body: object = None) -> dict[str, object]:
    """Ask the server as its owner does, beside everything."""
    proof = b64encode(f"writer:{CONFIG['password']}".encode()).decode()
    request = urllib.request.Request(
        f"https://127.0.0.1/api/2.0/mlflow/{path}",
        json.dumps(body).encode() if body is not None else None,
        {"Authorization": f"Basic {proof}", "Content-Type": "application/json"},
        method=method,
    )
    context = ssl._create_unverified_context()
    try:
        with urllib.request.urlopen(request, timeout=30, context=context) as answer:
            said: dict[str, object] = json.load(answer)
    except urllib.error.HTTPError as error:
        said = json.load(error)
    return said


def main() -> None:
    """Start it, and wait until it answers."""
    Path("/tmp/auth.ini").write_text(AUTH.format(password=CONFIG["password"]))
    env = {**os.environ, "MLFLOW_AUTH_CONFIG_PATH": "/tmp/auth.ini", "MLFLOW_FLASK_SERVER_SECRET_KEY": "of-the-tests",
           "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "HOME": "/tmp"}  # fmt: skip
    subprocess.Popen([sys.executable, "-m", "mlflow", *SERVER], env=env, stdout=sys.stderr, cwd="/tmp")
    while True:
        try:
            ask("GET", "registered-models/search")
            break
        except OSError:
            time.sleep(0.2)
    print(json.dumps({"ready": True}), flush=True)
    time.sleep(1e6)


if __name__ == "__main__":
    if sys.argv[1] == "ask":
        print(json.dumps(ask(sys.argv[2], sys.argv[3], json.loads(sys.argv[4]) if sys.argv[4:] else None)))
    else:
        main()
