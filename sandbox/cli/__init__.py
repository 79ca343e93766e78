"""The command line: `base` (errors and output), then one file a family of verbs: `plans`, `runs`, `host`."""

from sandbox.cli.base import main

__all__ = ["main"]
