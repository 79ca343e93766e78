"""How both processes are born: one message on standard input, a verified slice, diagnostics on standard error."""

from __future__ import annotations

import logging
import sys
import traceback
from pathlib import Path
from typing import BinaryIO, TypeVar

import structlog

from policies.errors import CasemateError
from policies.slices import Birth, CustomsSlice, GatewaySlice, open_slice, read_birth
from policies.vocabulary import Component

MAX_BIRTH = 16 * 1024 * 1024
"""Bytes of the birth message."""

S = TypeVar("S", GatewaySlice, CustomsSlice)


def read_bounded(stream: BinaryIO, component: Component, limit: int = MAX_BIRTH) -> bytes:
    """Read `stream` to its end; raise CSM-R010 beyond `limit` bytes."""
    data = stream.read(limit + 1)
    if len(data) > limit:
        raise CasemateError("CSM-R010", f"birth message over {limit} bytes", place=component.value)
    return data


def born(stream: BinaryIO, component: Component, kind: type[S]) -> tuple[Birth, S]:
    """Read the birth message from `stream` and return it with its verified slice; raise CSM-R010 otherwise."""
    birth = read_birth(read_bounded(stream, component), component)
    return birth, open_slice(birth, component, kind)


def told(error: BaseException) -> dict[str, str]:
    """Return the kind and the place of an error. Its message stays inside: it could quote a record or a secret."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "unknown"
    return {"error": type(error).__name__, "where": where}


def log_to_stderr() -> None:
    """Send diagnostics to standard error as JSON lines; standard output belongs to the events."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            # Without local variables: one of them could be a record or a secret.
            structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False)),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    # Server software reports every malformed request in its own words; an agent could fill the disk with them.
    logging.disable(logging.CRITICAL)
