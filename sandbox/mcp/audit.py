"""The audit of MCP servers: what each offers now, against its pins, and what is risky in how it is started. Pure."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from policies.canonical import canonical
from policies.errors import CasemateError
from policies.events import clean
from policies.plan import Pin, Tool
from policies.vocabulary import ExitCode
from sandbox.mcp.tool_rules import mark, problems

State = Literal["new", "as pinned", "changed", "gone", "twice"]
_RISKY: tuple[tuple[str, str], ...] = (
    (r"(ba|da|z)?sh", "a shell reads its arguments anew"),
    (r"npx|uvx|pipx|bunx", "it fetches the program when it starts, so no digest says which"),
    (r"docker|podman|nsenter|chroot", "it wants to start what is outside of its cell"),
    (r"--(privileged|network|net|pid|ipc|volume|mount|cap-add|device|security-opt)(=.*)?|-v.*", "a flag of an engine"),
    (r"--(no-sandbox|dangerously.*|allow-all|yolo|unsafe.*|insecure.*)(=.*)?", "it takes away a protection of its own"),
)


@dataclass(frozen=True, slots=True)
class Offer:
    """One tool of a server: its state against the pin, and its definition as it is now (None when it is gone)."""

    name: str
    state: State
    reads: bool
    definition: Mapping[str, Any] | None
    pinned: Mapping[str, Any] | None


def offers(live: Sequence[Mapping[str, Any]], pins: Sequence[Pin]) -> list[Offer]:
    """Hold what a server offers against its pins, by name."""
    pinned = {pin.name: pin for pin in pins}
    names = [str(definition.get("name")) for definition in live]
    found = []
    for name, definition in zip(names, live, strict=True):
        pin = pinned.get(name)
        state: State = "new" if pin is None else "changed"
        if pin is not None and canonical(pin.definition) == canonical(definition):
            state = "as pinned"
        if names.count(name) > 1:
            state = "twice"
        found.append(Offer(name, state, pin is not None and pin.reads, definition, pin.definition if pin else None))
    found += [Offer(n, "gone", pin.reads, None, pin.definition) for n, pin in pinned.items() if n not in names]
    return sorted(found, key=lambda offer: offer.name)


def risks(server: Tool) -> Iterator[str]:
    """Yield what is risky in how a server is started."""
    for word in server.run:
        for pattern, why in _RISKY:
            if re.fullmatch(pattern, word.rsplit("/", 1)[-1]):
                yield f"{clean(word, 100)}: {why}"


def render(server: str, offer: Offer) -> Iterator[str]:
    """Yield the lines that a person reads before approving: every character that could hide is made visible."""
    kind = "reads" if offer.reads else "not approved" if offer.pinned is None else "writes"
    now = _lines(offer.definition)
    hidden = sum(count for _, count in now)
    more = f", {hidden} hidden characters" if hidden else ""
    yield f"{server}.{clean(offer.name, 200)}  {offer.state}, {kind}{more}"
    for problem in problems(offer.definition) if offer.definition is not None else ():
        yield f"  cannot be approved: {problem.code}: {problem.message}"
    if offer.state == "changed":
        before, after = ([line for line, _ in lines] for lines in (_lines(offer.pinned), now))
        change = difflib.unified_diff(before, after, "pinned", "now", lineterm="", n=2)
        yield from (f"    {line}" for line in change)
    else:
        yield from (f"    {line}" for line, _ in now)


def _lines(definition: Mapping[str, Any] | None) -> list[tuple[str, int]]:
    if definition is None:
        return []
    text = json.dumps(definition, indent=1, ensure_ascii=False, sort_keys=True)
    return [mark(line) for line in text.split("\n")]


def approved(
    pins: Mapping[str, Sequence[Pin]], found: Mapping[str, Sequence[Offer]], names: Sequence[str], *, reads: bool = True
) -> tuple[dict[str, tuple[Pin, ...]], list[str]]:
    """Return the pins after `SERVER.TOOL` names were approved as tools that only read (or write), and unknown names.

    Raises `CasemateError` for a definition that cannot be judged by.
    """
    wanted = set(names)
    result: dict[str, tuple[Pin, ...]] = {server: tuple(old) for server, old in pins.items()}
    for server, offered in found.items():
        kept = {pin.name: pin for pin in pins.get(server, ())}
        for offer in offered:
            full = f"{server}.{offer.name}"
            if full in wanted and offer.definition is not None and offer.state != "twice":
                _refuse(full, offer.definition)
                kept[offer.name] = Pin(name=offer.name, reads=reads, definition=dict(offer.definition))
                wanted.discard(full)
        result[server] = tuple(sorted(kept.values(), key=lambda pin: pin.name))
    return result, sorted(wanted)


def _refuse(name: str, definition: Mapping[str, Any]) -> None:
    for problem in problems(definition):
        raise CasemateError(
            problem.code, problem.message, place=clean(name, 200), hint=problem.hint, exit_code=ExitCode.REFUSED
        )
