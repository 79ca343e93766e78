"""`python -m tests.bench.doors [llm|egress] [CONNECTIONS…]`: the doors beside nginx, squid, mitmdump and LiteLLM.

Nothing else should run meanwhile. The tables are Markdown; `tests/bench/arena.py` says what is measured and how.
"""

from __future__ import annotations

import subprocess
import sys

from sandbox.engine.host import connect
from sandbox.engine.images import BENCH, build_all
from tests.rooms import checkout

SCRIPT = "set -e; mkdir /tmp/src; tar -x -C /tmp/src; cd /tmp/src; exec python3 -m tests.bench.arena {arguments}"


def main() -> int:
    """Build the image, and run the arena in it."""
    build_all(connect(), lambda text: print(f"· {text}", flush=True), (BENCH,))
    script = SCRIPT.format(arguments=" ".join(sys.argv[1:]))
    command = ["docker", "run", "--rm", "-i", BENCH.name, "sh", "-c", script]
    return subprocess.run(command, input=checkout(), check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
