"""The command line: `main` is the entry, `base` what verbs share; a file a family: `plans`, `more`, `runs`, `host`."""

from sandbox.cli.main import main

__all__ = ["main"]
