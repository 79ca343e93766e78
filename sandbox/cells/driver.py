"""The driver of a run: takes signals, writes the log, and knows which containers must not die.

Whatever goes wrong here raises `CasemateError`; the runner turns that into the end of the run. Nothing is retried and
nothing is guessed: a trusted process that dies, a line that is not an event, a missing number, all end the run.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from policies.errors import CasemateError
from policies.events import ComponentEvent, clean
from policies.plan import encode
from policies.slices import Birth
from policies.vocabulary import Component, EventName, ExitCode, Verdict
from sandbox.cells.watch import Ended, Interrupted, Ready, Signal, Spoke, Watch
from sandbox.engine.docker import Engine, Exit
from sandbox.records.account import Account
from sandbox.records.log import RunEvent, RunLog, parse_component_event
from sandbox.records.tally import Tally
from sandbox.topology.specs import ContainerSpec

READY_S = 60.0
SYNC_S = 30.0
OnEvent = Callable[[RunEvent, Tally], None]


class Driver:
    """One run's signals, log, account and guards."""

    def __init__(
        self,
        engine: Engine,
        folder: Path,
        log: RunLog,
        on_event: OnEvent,
        deadline: float,
        account: Account | None = None,
    ) -> None:
        """Drive a run from its beginning, or from where its `account` says that it is."""
        self.engine, self.log, self.account = engine, log, account or Account()
        self._folder, self._on_event, self._deadline = folder, on_event, deadline
        self.renew()

    def renew(self) -> None:
        """Forget the containers of before: they are gone, and others will have their names."""
        self.watch = Watch(self.engine, self._folder / "logs")
        self._guarded: dict[str, str] = {}
        self._ready: set[str] = set()
        self._ended: dict[str, Exit] = {}
        self._seen: dict[tuple[Component, EventName], int] = {}
        self.certificate: str | None = None
        self._sent: RunEvent | None = None

    def interrupt(self, signal: int) -> None:
        """Ask for the end of the run; safe to call from a signal handler."""
        self.watch.interrupt(signal)

    @property
    def tally(self) -> Tally:
        """The run in numbers."""
        return self.account.tally

    # ---- events of the orchestrator

    def note(self, event: EventName, **fields: object) -> None:
        """Log an event of the orchestrator itself."""
        self._record(self.log.own(event, **fields))  # type: ignore[arg-type]

    def take(self, event: ComponentEvent) -> None:
        """Log an event of a component."""
        record = self.log.append(event)
        if event.event is EventName.WRITE_SENT:
            self._sent = record
        self._record(record)

    def _record(self, event: RunEvent) -> None:
        self.account.add(event)
        self._on_event(event, self.tally)

    def take_sent(self) -> RunEvent | None:
        """Return what was said last of a write to a sink outside, once."""
        said, self._sent = self._sent, None
        return said

    # ---- starting

    def launch(self, spec: ContainerSpec, component: Component | None = None, birth: Birth | None = None) -> None:
        """Start a trusted container; from now on its end ends the run."""
        message = encode(birth) if birth is not None else None
        if component is not None:
            self.log.begin(component)
        self._guarded[spec.name] = spec.role
        self.watch.launch(spec, component=component, birth=message)
        self._note_secrets(spec, birth)

    def adopt(self, spec: ContainerSpec, component: Component, birth: Birth) -> None:
        """Take over a trusted container that was started beforehand; from now on its end ends the run."""
        self.log.begin(component)
        self._guarded[spec.name] = spec.role
        self.watch.adopt(spec, component, encode(birth))
        self._note_secrets(spec, birth)

    def _note_secrets(self, spec: ContainerSpec, birth: Birth | None) -> None:
        for name in sorted(birth.secrets) if birth else ():
            attrs: dict[str, object] = {"casemate.secret.name": name, "casemate.component": spec.role}
            self.note(EventName.SECRET_DELIVERED, attrs=attrs)

    def await_ready(self, names: list[str]) -> None:
        """Return when every one of the containers has said that it is ready; raise CSM-R003 when one does not."""
        until = time.monotonic() + READY_S
        while waiting := [name for name in names if name not in self._ready]:
            if self.step(until) is None and time.monotonic() >= until:
                raise self._failure("CSM-R003", f"{self._guarded[waiting[0]]} did not become ready in {READY_S:.0f} s")

    def release(self, name: str) -> None:
        """Let a container end without ending the run."""
        self._guarded.pop(name, None)

    # ---- waiting

    def step(self, until: float) -> Signal | None:
        """Handle one signal; None when there was none before `until` (monotonic seconds) or the run's deadline."""
        self._check_deadline()
        signal = self.watch.next(min(until, self._deadline) - time.monotonic())
        if signal is not None:
            self.handle(signal)
        return signal

    def await_end(self, name: str, until: float) -> Exit | None:
        """Return how a container ended, or None when it still runs at `until`."""
        return self.await_first({name: until})[1]

    def await_first(self, deadlines: Mapping[str, float]) -> tuple[str, Exit | None]:
        """Return which of some containers ended first, and how; None for one that still runs at its deadline."""
        while True:
            for name, until in deadlines.items():
                if name in self._ended or time.monotonic() >= until:
                    return name, self._ended.get(name)
            self.step(min(deadlines.values()))

    def sync(self, components: dict[Component, str]) -> None:
        """Return when everything that the components had written up to now is in the log."""
        wanted = {c: self._count(c, EventName.COMPONENT_SYNCED) + 1 for c in components}
        for name in components.values():
            self.engine.kill(name, "SIGUSR1")
        until = time.monotonic() + SYNC_S
        while any(self._count(c, EventName.COMPONENT_SYNCED) < n for c, n in wanted.items()):
            if self.step(until) is None and time.monotonic() >= until:
                raise self._failure("CSM-R011", "a component does not answer; its events may be missing")

    def handle(self, signal: Signal) -> None:
        """Take one signal into account; raise when it ends the run."""
        match signal:
            case Spoke(component, line):
                event = parse_component_event(line, component)
                key = (component, event.event)
                self._seen[key] = self._count(*key) + 1
                if event.event is EventName.COMPONENT_READY:
                    self._ready |= {name for name, role in self._guarded.items() if role == component.value}
                    published = event.attrs.get("casemate.certificate")
                    if component is Component.FIREWALL and isinstance(published, str):
                        self.certificate = published
                self.take(event)
            case Ready(name):
                self._ready.add(name)
            case Ended(name, how):
                self._ended[name] = how
                if name in self._guarded:
                    raise self._died(name, how)
            case Interrupted(number):
                message = f"stopped by signal {number}"
                hint = "nothing was applied; `casemate resume` goes on"
                raise CasemateError("CSM-R014", message, hint=hint, exit_code=ExitCode.INTERRUPTED)

    def wind_down(self, grace_s: float) -> None:
        """Take in what containers that were told to end still have to say. A run that failed is not failed twice."""
        self._guarded.clear()
        for signal in self.watch.drain(grace_s):
            if isinstance(signal, Spoke):
                with contextlib.suppress(CasemateError):
                    self.handle(signal)

    def _count(self, component: Component, event: EventName) -> int:
        return self._seen.get((component, event), 0)

    def _check_deadline(self) -> None:
        if time.monotonic() >= self._deadline:
            raise self._failure("CSM-R007", "the run's wall time is over", ExitCode.TIMED_OUT)

    def _died(self, name: str, how: Exit) -> CasemateError:
        role = self._guarded.pop(name)
        why = "out of memory" if how.out_of_memory else f"exit {how.code}"
        try:
            last = self.engine.logs(name, stdout=False, tail=5).decode(errors="replace").strip()
        except CasemateError:
            last = ""
        self.note(
            EventName.COMPONENT_FAILED,
            verdict=Verdict.DENY,
            rule="CSM-R004",
            reason=f"{role} ended: {why}",
            attrs={"casemate.component": role, "casemate.exit_code": how.code},
        )
        hint = f"it said: {clean(last, 300)}" if last else "nothing that it guarded was let through"
        return self._failure("CSM-R004", f"{role} died ({why})", hint=hint)

    @staticmethod
    def _failure(
        code: str, message: str, exit_code: ExitCode = ExitCode.STAGE_FAILED, hint: str | None = None
    ) -> CasemateError:
        return CasemateError(code, message, exit_code=exit_code, hint=hint)
