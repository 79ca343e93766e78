"""`python -m tests.lock`: resolve every lock file anew; those of the images for their Python and platform."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from sandbox.engine.images import PLATFORMS, PYTHON

ROOT = Path(__file__).resolve().parents[1]
IMAGES = (
    "firewall",
    "llm",
    "gateway",
    "customs",
    "cython",
    "git",
    "model",
    "agent",
    "agent-claude",
    "npm",
    "mcp-servers",
    "tools",
    "litellm",
    "mitmdump",
    "fastmcp",
    "mcp-proxy",
    "test-mlflow",
    "roomtest",
)
HOST = ("host", "dev")


def main() -> None:
    """Write requirements/*.txt; every line has hashes and none names a host."""
    base = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--upgrade", "--generate-hashes", "--no-header"]
    base.append("--system-certs")
    for extra in (*IMAGES, *HOST):
        where = (
            ["--universal", "--python-version", "3.11"]
            if extra in HOST
            else ["--python-version", PYTHON, "--python-platform", PLATFORMS["x86_64"]]
        )
        target = f"requirements/{extra}.txt"
        subprocess.run([*base, *where, "--extra", extra, "pyproject.toml", "-o", target], cwd=ROOT, check=True)
        print(target)


if __name__ == "__main__":
    main()
