"""Events: what a component writes when something crosses a boundary.

A component writes one line of canonical JSON an event to its standard output, numbered without a gap (`n`). The engine
keeps those lines in a file of their own for each component; the orchestrator merges them into the run's one
`events.jsonl` and adds `seq`, `prev`, `run` and `plan`. A gap in `n`, or an event that cannot be written, ends the run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import msgspec

from policies.cells import parted
from policies.plan import Count, Frozen
from policies.vocabulary import ATTRIBUTES, Component, EventName, Verdict

Attribute = str | int | bool | None

MAX_LINE = 8192
MAX_TEXT = 500
_UNPRINTABLE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]|[\ud800-\udfff]|[\U000e0000-\U000e007f]"
)


class ComponentEvent(Frozen, frozen=True, kw_only=True):
    """One boundary crossing, as its component saw it. `time` is RFC 3339 UTC with microseconds."""

    n: Count
    time: str
    actor: Component
    event: EventName
    stage: str | None
    shard: int | None = None
    verdict: Verdict | None
    rule: str | None
    reason: str | None
    attrs: dict[str, Attribute]


class EventLogError(RuntimeError):
    """The event could not be written; whoever wanted to act must not."""


def clean(text: str, limit: int = MAX_TEXT) -> str:
    """Return text that came from outside, cut to `limit` and with control and hidden characters made visible."""
    if len(text) <= limit and text.isascii() and text.isprintable():
        return text
    return _UNPRINTABLE.sub(lambda match: f"\\u{{{ord(match.group()):x}}}", text[:limit])[: 2 * limit]


def now() -> str:
    """Return the current time as RFC 3339 UTC with microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def _encode(record: ComponentEvent) -> bytes:
    """Return the canonical bytes of an event.

    An event has no fraction and only ASCII keys, and then an encoder that sorts them gives RFC 8785, in a tenth of the
    time; a test holds the two against each other.
    """
    return msgspec.json.encode(record, order="sorted")


def _write_stdout(line: bytes) -> None:
    view = memoryview(line)
    while view:
        view = view[os.write(1, view) :]


class EventWriter:
    """Writes the events of one component, in order, or raises `EventLogError`. After one failure it fails for ever."""

    def __init__(self, actor: Component, write: Callable[[bytes], None] = _write_stdout) -> None:
        self._actor, self._write, self._n, self._broken = actor, write, 0, False

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
        """Write one event. `stage` may be the cell of a shard; `rule` is an error code or the place of a rule; `attrs`
        keys come from `ATTRIBUTES`."""
        where, shard = parted(stage) if stage is not None else (None, None)
        record = ComponentEvent(
            n=self._n,
            time=now(),
            actor=self._actor,
            event=event,
            stage=where,
            shard=shard,
            verdict=verdict,
            rule=clean(rule) if rule else None,
            reason=clean(reason) if reason else None,
            attrs={k: clean(v, 4000) if isinstance(v, str) else v for k, v in (attrs or {}).items()},
        )
        unknown = record.attrs.keys() - ATTRIBUTES
        line = _encode(record) + b"\n"
        if self._broken or unknown or len(line) > MAX_LINE:
            self._broken = True
            raise EventLogError(f"event {event} cannot be written (unknown: {sorted(unknown)}, {len(line)} bytes)")
        try:
            self._write(line)
        except OSError as error:
            self._broken = True
            raise EventLogError(str(error)) from error
        self._n += 1
