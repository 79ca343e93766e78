"""`python -m tests.rooms [TESTS…]`: the tests of what ships in images, in one that has all of it, without a network.

`python -m tests.rooms run MODULE [ARGUMENTS…]` runs a program of the tests there, the fuzzer of the doors for one, with
as much memory as customs has in a run, and `/var/tmp` on a volume, as its files are.

The checkout travels into the container as a tar stream, so that the engine may be anywhere.
"""

from __future__ import annotations

import io
import shlex
import subprocess
import sys
import tarfile
from pathlib import Path

from sandbox.engine.host import connect
from sandbox.engine.images import ROOMTEST, build_all

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("proxy", "gateway")
MEMORY = "1024m"
UNPACK = (
    "set -e; mkdir /tmp/src; tar -x -C /tmp/src; cd /opt/app;"
    " find . '(' -name '*.so' -o -path '*/prepared/*' ')' -exec cp --parents {} /tmp/src ';';"
    " cd /tmp/src; export HOME=/tmp;"
)
TESTS = (
    " python3 -m mypy --python-version 3.13 --cache-dir /tmp/mypy {rooms};"
    " python3 -m pytest -p no:cacheprovider -n 2 {tests}"
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
    words, limits = sys.argv[1:], list[str]()
    if words[:1] == ["run"]:
        task = f" exec python3 -m {shlex.join(words[1:])}"
        limits = ["--memory", MEMORY, "--memory-swap", MEMORY, "--volume", "/var/tmp"]
    else:
        task = TESTS.format(rooms=" ".join(ROOMS), tests=shlex.join(words or [f"tests/{room}" for room in ROOMS]))
    command = ["docker", "run", "--rm", "-i", "--network", "none", "--user", "1000", "--cap-drop", "ALL"]
    command += ["--security-opt", "no-new-privileges", "--tmpfs", "/tmp:exec,mode=1777"]
    command += [*limits, ROOMTEST.name, "sh", "-c", UNPACK + task]
    return subprocess.run(command, input=checkout(), check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
