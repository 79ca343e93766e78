"""What both trusted processes have in common: they are born knowing nothing, and end when they cannot say what they do.

1. Read the birth message from standard input, to its end.
2. Verify the slice against the seal; refuse (exit 2) before anything is bound.
3. Bind the doors, then say `component.ready`.
4. Serve until SIGTERM (exit 0), or until an event cannot be written (exit 1).
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

import structlog

from policies.errors import CasemateError
from policies.events import Attribute, EventLogError, EventWriter
from policies.slices import Birth, read_birth
from policies.vocabulary import Component, EventName, Verdict

MAX_BIRTH = 16 * 1024 * 1024
"""Bytes of a birth message."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Roots:
    """Where the volumes are mounted."""

    doors: Path
    models: Path
    state: Path
    recording: Path

    @classmethod
    def under(cls, root: Path) -> Roots:
        """Return the folders under one root, `/` in a container."""
        return cls(doors=root / "doors", models=root / "models", state=root / "state", recording=root / "recording")


class Events:
    """The event writer of a process that ends with the first event that it could not write."""

    def __init__(self, writer: EventWriter) -> None:
        self._writer, self.broken = writer, asyncio.Event()
        self._about: dict[str, Attribute] = {}

    def about(self, attrs: Mapping[str, Attribute]) -> Events:
        """Return the same writer, for events that all have `attrs` beside their own."""
        same = copy(self)
        same._about = {**self._about, **attrs}
        return same

    def __call__(
        self,
        event: EventName,
        *,
        stage: str | None = None,
        verdict: Verdict | None = None,
        rule: str | None = None,
        reason: str | None = None,
        attrs: Mapping[str, Attribute] | None = None,
    ) -> None:
        """Write one event; raise `EventLogError`, whereupon the caller must not do what it announced."""
        try:
            self._writer(
                event, stage=stage, verdict=verdict, rule=rule, reason=reason, attrs={**self._about, **(attrs or {})}
            )
        except Exception as error:
            self.broken.set()
            if isinstance(error, EventLogError):
                raise
            raise EventLogError(type(error).__name__) from error


def read_message(stream: BinaryIO, component: Component) -> Birth:
    """Read the birth message to its end; raise `CasemateError` (R010)."""
    data = stream.read(MAX_BIRTH + 1)
    if len(data) > MAX_BIRTH:
        raise CasemateError("CSM-R010", "birth message too large", place=component.value)
    return read_birth(data, component)


def lay_doors(birth: Birth, roots: Roots) -> None:
    """Make the doors of a process that was started before anybody knew its stages: links to the slots it has.

    The birth message says which, as `door=slot door=slot`; without a word of it the doors are mounted by their names.
    """
    for pair in birth.facts.get("doors", "").split():
        door, _, slot = pair.partition("=")
        (roots.doors / door).symlink_to(roots.doors.parent / "slots" / slot)


def configure_logging() -> None:
    """Send diagnostics to standard error as JSON; standard output carries events only.

    Threat: a traceback with local variables writes keys into a log, so frames are rendered without them, and
    libraries may only speak from ERROR upwards (at lower levels some log request lines and headers).
    """
    tracer = structlog.tracebacks.ExceptionDictTransformer(show_locals=False, max_frames=20)
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.ExceptionRenderer(tracer),
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer()],
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
            foreign_pre_chain=shared,
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.ERROR, force=True)
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)  # its errors quote what a client sent


def check_import_path(path: list[str]) -> None:
    """Refuse to run with this package's folder on the import path.

    Threat: there `types.py` or `log.py` of a room shadows the standard library; it happens when the file is started
    by its path in place of `python -m proxy`.
    """
    here = Path(__file__).resolve().parent
    if any(Path(entry or ".").resolve().is_relative_to(here) for entry in path):
        raise CasemateError("CSM-R018", "start with `python -m proxy`, not by a file's path", place="proxy")


@asynccontextmanager
async def bound(path: Path, bind: Callable[[str], Awaitable[T]]) -> AsyncIterator[T]:
    """Bind a Unix socket with mode 0660 and remove it in the end; its folder must exist, as it is a mounted volume."""
    if not path.parent.is_dir():
        raise CasemateError("CSM-R017", f"no folder for the door {path}", place="proxy")
    path.unlink(missing_ok=True)
    before = os.umask(0o117)  # never a moment in which others may connect
    try:
        server = await bind(str(path))
    except OSError as error:
        raise CasemateError("CSM-R017", f"cannot bind {path}: {error.strerror}", place="proxy") from error
    finally:
        os.umask(before)
    try:
        path.chmod(0o660)
        yield server
    finally:
        path.unlink(missing_ok=True)


def _mark(events: Events) -> None:
    with suppress(EventLogError):  # `events.broken` is set, and ends the process
        events(EventName.COMPONENT_SYNCED)


async def serve(
    app: AbstractAsyncContextManager[None], events: Events, published: Mapping[str, Attribute] | None = None
) -> int:
    """Enter `app`, say that it is ready, and serve until SIGTERM or a broken event log. Returns the exit code.

    `published` are attributes of the event that says so: what the others must know of this process.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    # Whoever reads our events asks by this signal for a mark: when it comes, everything before it has come.
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, _mark, events)
    async with app:
        events(EventName.COMPONENT_READY, attrs=published)
        waits = {asyncio.create_task(stop.wait()), asyncio.create_task(events.broken.wait())}
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
    return 1 if events.broken.is_set() else 0
