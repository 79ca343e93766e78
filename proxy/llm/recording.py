"""Record and replay: what was asked and what came of it, one JSON line a call, one file a stage.

A line is written whole before the call ends, so a crash loses no call that ended. In a replay, the calls of one key get
their answers in the order in which they ended when they were recorded; a call that was not recorded is denied. A run
that is resumed goes on writing its own recording, and what stands there already is answered from it, once, at no cost.
"""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, Protocol

import msgspec

from policies.errors import CasemateError
from policies.plan import Count, Frozen
from policies.secret_rules import secret_rules
from proxy.llm.taken import Taken
from proxy.llm.types import LlmRequest, Refused

VERSION: Final = 1
MAX_BYTES: Final = 1024 * 1024 * 1024
REDACTED: Final = "[redacted]"


class Line(Frozen, frozen=True, kw_only=True):
    """One call. `request` is what the provider was asked, redacted: for people, and for `learn`; `key` finds it."""

    version: int
    n: Count
    key: str
    asked: str
    stream: bool
    request: str
    taken: Taken


class Recorder(Protocol):
    """What takes calls down."""

    def __call__(self, key: str, asked: str, request: LlmRequest, taken: Taken) -> None:
        """Take one call down; raise `OSError`, whereupon the call fails."""


class Recording:
    """The recording of one stage, as it is written. Secrets go by value and by form; of an answer, by value only."""

    def __init__(self, path: Path, secrets: Iterable[str], goes_on: Replay | None = None) -> None:
        """Begin a recording, or go on with one whose lines were read."""
        self._secrets = sorted(filter(None, secrets), key=len, reverse=True)
        self._forms = [re.compile(rule.pattern) for rule in secret_rules().rules]
        self._n = goes_on.lines if goes_on is not None else 0
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | (0 if goes_on else os.O_EXCL), 0o640)
        self._size = goes_on.size if goes_on is not None else 0
        os.ftruncate(self._file, self._size)  # a line that was cut short is no line

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def __call__(self, key: str, asked: str, request: LlmRequest, taken: Taken) -> None:
        """Take one call down; raise `OSError` when it cannot be."""
        said = self._without(request.body.decode())
        for form in self._forms:
            said = form.sub(REDACTED, said)
        refused = taken.refused
        clean = msgspec.structs.replace(
            taken,
            body=None if taken.body is None else self._without(taken.body),
            events=None if taken.events is None else [self._without(event) for event in taken.events],
            refused=refused and msgspec.structs.replace(refused, hint=self._without(refused.hint)),
        )
        line = Line(version=VERSION, n=self._n, key=key, asked=asked, stream=request.stream, request=said, taken=clean)
        data = msgspec.json.encode(line) + b"\n"
        self._size += len(data)
        if self._size > MAX_BYTES:
            raise OSError(f"a recording over {MAX_BYTES} bytes")
        while data:
            data = data[os.write(self._file, data) :]
        os.fsync(self._file)
        self._n += 1

    def _without(self, text: str) -> str:
        for secret in self._secrets:
            # as it stands, and as it stands inside JSON
            text = text.replace(secret, REDACTED).replace(json.dumps(secret)[1:-1], REDACTED)
        return text


class Replay:
    """The recording of one stage, as it is read."""

    def __init__(self, path: Path) -> None:
        """Read a recording; a stage without one never asked. Raises `CasemateError` (R010)."""
        self._taken: Mapping[str, deque[Taken]] = defaultdict(deque)
        whole = path.read_bytes() if path.exists() else b""
        lines = whole.split(b"\n")
        self.lines, self.size = len(lines) - 1, len(whole) - len(lines[-1])
        for number, data in enumerate(lines[:-1]):  # what has no end of line was never finished
            try:
                line = msgspec.json.decode(data, type=Line, strict=True)
            except msgspec.MsgspecError as error:
                raise CasemateError("CSM-R010", f"line {number + 1} is no record: {error}", place=path.name) from error
            if line.version != VERSION or line.n != number:
                raise CasemateError("CSM-R010", f"line {number + 1} is out of its place", place=path.name)
            self._taken[line.key].append(line.taken)

    def find(self, key: str) -> Taken | None:
        """Return what came of the next call of this key, if there was one."""
        waiting = self._taken.get(key)
        return waiting.popleft() if waiting else None

    def paid(self, key: str) -> Taken | None:
        """Return the next whole answer to this key. One that a crash cut short was no answer."""
        while (taken := self.find(key)) is not None and not taken.complete:
            pass
        return taken

    def next(self, key: str) -> Taken:
        """Return what came of the next call of this key; raise `Refused` (P032) where there was none."""
        if (taken := self.find(key)) is None:
            raise Refused(
                "CSM-P032",
                f"no record of {key[:19]}",
                hint="this run is a replay, and the recorded run did not ask this (as often): record it again",
            )
        return taken
