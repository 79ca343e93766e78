"""`python -m tests.rooms`: the tests of what ships in images, run in an image that has all of it, without a network.

The checkout travels into the container as a tar stream, so that the engine may be anywhere.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path

from sandbox.host import connect
from sandbox.images import ROOMTEST, build_all

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("proxy", "gateway")
SCRIPT = (
    "set -e; mkdir /tmp/src; tar -x -C /tmp/src; cd /tmp/src; export HOME=/tmp;"
    " python3 -m mypy --python-version 3.13 --cache-dir /tmp/mypy {rooms};"
    " python3 -m pytest -p no:cacheprovider {tests}"
)


def checkout() -> bytes:
    """Return the files of the checkout as a tar archive."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    )
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in listing.stdout.decode().split("\0"):
            if name and (ROOT / name).is_file():
                archive.add(ROOT / name, arcname=name)
    return buffer.getvalue()


def main() -> int:
    """Run them; return pytest's exit code."""
    engine = connect()
    build_all(engine, lambda text: print(f"· {text}", flush=True), (ROOMTEST,))
    tests = sys.argv[1:] or [f"tests/{room}" for room in ROOMS]
    script = SCRIPT.format(rooms=" ".join(ROOMS), tests=" ".join(tests))
    command = ["docker", "run", "--rm", "-i", "--network", "none", "--user", "1000", "--cap-drop", "ALL"]
    command += [
        "--security-opt",
        "no-new-privileges",
        "--tmpfs",
        "/tmp:exec,mode=1777",
        ROOMTEST.name,
        "sh",
        "-c",
        script,
    ]
    return subprocess.run(command, input=checkout(), check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
