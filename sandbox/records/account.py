"""What the events of a run add up to so far: kept up live, or taken from the log when a run is resumed. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from policies.vocabulary import EventName, Verdict
from sandbox.records.log import RunEvent
from sandbox.records.tally import Tally

_LEGS = (EventName.RUN_STARTED, EventName.RUN_RESUMED)


@dataclass(frozen=True, slots=True)
class Promise:
    """A file that an agent proposed: the id of the proposal, its output, and the path below /workspace."""

    id: str
    output: str
    path: str


class Proposed(NamedTuple):
    """One buffered proposal: its output, the bytes of its line, and the rows that it counts for at the gateway."""

    output: str
    size: int
    rows: int


class Reserved(NamedTuple):
    """What a call may come to that has been let through and is not settled."""

    tokens: int
    usd_nanos: int


@dataclass(slots=True)
class Account:
    """By cell. Of one that was tried more than once, only what its last attempt proposed counts; all of them cost.

    `heads`: the digest of the last line of each cell's write buffer; `open`: calls that nobody has settled, the
    dearest of those that it may be; `seconds`: of wall time, while somebody drove the run.
    """

    tally: Tally = field(default_factory=Tally)
    heads: dict[str, str] = field(default_factory=dict)
    promises: dict[str, list[Promise]] = field(default_factory=dict)
    proposed: defaultdict[str, list[Proposed]] = field(default_factory=lambda: defaultdict(list))
    open: defaultdict[str, list[Reserved]] = field(default_factory=lambda: defaultdict(list))
    seconds: float = 0.0
    _last: datetime | None = None

    @classmethod
    def of(cls, events: Iterable[RunEvent]) -> Account:
        """Add up a log."""
        account = cls()
        for event in events:
            account.add(event)
        return account

    def add(self, event: RunEvent) -> None:
        """Take one event into account."""
        self.tally.add(event)
        self._time(event)
        cell, attrs = event.cell, event.attrs
        if cell is None:
            return
        match event.event:
            case EventName.STAGE_STARTED:
                self.heads.pop(cell, None)
                self.promises.pop(cell, None)
                self.proposed.pop(cell, None)
            case EventName.WRITE_PROPOSED if event.verdict is Verdict.ALLOW:
                self._propose(cell, event)
            case EventName.LLM_DECIDED if event.verdict is Verdict.ALLOW:
                tokens, usd = _int(attrs, "casemate.reserved.tokens"), _int(attrs, "casemate.reserved.usd_nanos")
                self.open[cell].append(Reserved(tokens, usd))
            case EventName.LLM_SETTLED if self.open[cell]:
                self.open[cell].remove(min(self.open[cell]))
            case _:
                pass

    def _propose(self, cell: str, event: RunEvent) -> None:
        attrs = event.attrs
        head, output = attrs.get("casemate.write.digest"), attrs.get("casemate.output")
        if not isinstance(head, str) or not isinstance(output, str):
            return
        self.heads[cell] = head
        path = attrs.get("casemate.path")
        self.proposed[cell].append(Proposed(output, _int(attrs, "casemate.bytes.in"), int(path is None)))
        if isinstance(path, str):
            promise = Promise(str(attrs["casemate.write.id"]), output, path)
            self.promises.setdefault(cell, []).append(promise)

    def _time(self, event: RunEvent) -> None:
        at = datetime.fromisoformat(event.time)
        if event.event not in _LEGS and self._last is not None:
            self.seconds += max((at - self._last).total_seconds(), 0.0)
        self._last = at

    def spent(self) -> dict[str, str]:
        """Return the facts that tell the llm proxy what each stage has spent."""
        return {
            f"spent/{name}": f"{stage.calls} {stage.input_tokens + stage.output_tokens} {stage.usd_nanos}"
            for name, stage in self.tally.stages.items()
        }

    def used(self, cells: Iterable[str]) -> dict[str, str]:
        """Return the facts that tell the gateway what `cells`, which completed, have proposed."""
        facts: dict[str, str] = {}
        used: defaultdict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
        for cell in cells:
            for output, size, rows in self.proposed.get(cell, ()):
                used[output] = (used[output][0] + rows, used[output][1] + size)
            facts[f"proposals/{cell}"] = str(len(self.proposed.get(cell, ())))
        return {**facts, **{f"used/{output}": f"{rows} {size}" for output, (rows, size) in used.items()}}


def _int(attrs: Mapping[str, object], name: str) -> int:
    value = attrs.get(name)
    return value if isinstance(value, int) else 0
