"""What the firewall talks about: a request head, the request it means, and the decision over it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from policies.plan import EgressRule
from policies.vocabulary import Verdict

Scheme = Literal["https", "http"]


class Refused(Exception):  # noqa: N818 - the word for it; a refusal is an answer, not a fault
    """The request is refused with `code`; `reason` is for people, `host` is what was asked for, if that is known."""

    def __init__(self, code: str, reason: str, *, host: str = "", rule: str | None = None) -> None:
        self.code, self.reason, self.host, self.rule = code, reason, host, rule
        super().__init__(f"{code}: {reason}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A request head that has exactly one reading. Names are lower case; text is Latin-1, one character a byte."""

    method: str
    target: str
    version: Literal["HTTP/1.1", "HTTP/1.0"]
    headers: tuple[tuple[str, str], ...]

    def get(self, name: str) -> str | None:
        """Return the first value of a header, or None."""
        return next((value for key, value in self.headers if key == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressRequest:
    """Where a stage wants to go. `host` is a canonical A-label name; `path` has the query, and is empty for a tunnel.

    With scheme `https`, the method CONNECT asks for a tunnel; any other was read inside an inspected one.
    """

    scheme: Scheme
    host: str
    port: int
    method: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The verdict over one request. `rule` is the one that admits; `code` is the error of a denial."""

    verdict: Literal[Verdict.ALLOW, Verdict.DENY]
    rule: EgressRule | None
    code: str | None
    reason: str
