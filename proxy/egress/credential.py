"""Header credentials: put into requests that a rule admits, and kept out of what comes back. Pure.

Threat: the agent makes the destination repeat what it was sent (an echo, an error page), or splits it over two answers
(a range), or hides it from this reader (compression). So the agent's own header is replaced, such requests ask for
whole and plain answers, and the value is blanked wherever an answer has it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from policies.errors import CasemateError
from policies.plan import EgressRule
from proxy.egress.types import EgressRequest, Refused

Headers = list[tuple[bytes, bytes]]

_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_WHOLE = frozenset({b"accept-encoding", b"range", b"if-range", b"te"})
MIN_VALUE = 8
"""Characters of a value; a shorter one would be found, and blanked, everywhere."""


@dataclass(frozen=True, slots=True, repr=False)
class Credential:
    """A secret, the one header in which it goes out, and the one host that gets it. Never printed."""

    name: str
    host: str
    header: bytes
    scheme: bytes
    value: bytes

    def inject(self, headers: Headers, request: EgressRequest, rule: EgressRule) -> Headers:
        """Return the headers with this secret in place of what the agent sent; raise `Refused` (P019) elsewhere."""
        if request.scheme != "https" or not rule.inspect or not request.host == rule.host == self.host:
            raise Refused("CSM-P019", "a secret is for another place", host=request.host)
        # servers that hand headers to programs as variables read x_api_key as x-api-key
        kept = [(k, v) for k, v in headers if k.replace(b"_", b"-") != self.header and k not in _WHOLE]
        text = self.scheme + b" " + self.value if self.scheme else self.value
        return [*kept, (self.header, text), (b"accept-encoding", b"identity")]


class Redactor:
    """Blanks a value in a stream, also where it stands across parts. What may be its beginning is kept back."""

    def __init__(self, value: bytes) -> None:
        self._value, self._kept = value, b""
        self.found = False

    def part(self, data: bytes) -> bytes:
        """Return what can be passed on now."""
        text = self.whole(self._kept + data)
        keep = self._beginning(text)
        self._kept = text[len(text) - keep :]
        return text[: len(text) - keep]

    def rest(self) -> bytes:
        """Return what was kept back, at the end."""
        kept, self._kept = self._kept, b""
        return kept

    def whole(self, data: bytes) -> bytes:
        """Return a text with the value blanked, of the same length."""
        if self._value not in data:
            return data
        self.found = True
        return data.replace(self._value, b"*" * len(self._value))

    def _beginning(self, text: bytes) -> int:
        """Return how many of the last bytes may be the beginning of the value."""
        most = min(len(text), len(self._value) - 1)
        return next((size for size in range(most, 0, -1) if text.endswith(self._value[:size])), 0)


def credentials(rules: Sequence[EgressRule], secrets: Mapping[str, str]) -> list[Credential]:
    """Return the credentials of a stage's rules; raise `CasemateError` (R009) for a value that no header can carry."""
    found = []
    for rule in rules:
        if (bound := rule.credential) is None:
            continue
        value = secrets.get(bound.secret, "")
        if len(value) < MIN_VALUE or len(value) > 8192 or not _VALUE.fullmatch(value):
            raise CasemateError("CSM-R009", f'secret "{bound.secret}" cannot stand in a header', place="firewall")
        header, scheme = bound.header.encode("ascii"), bound.scheme.encode("ascii")
        found.append(Credential(bound.secret, rule.host, header, scheme, value.encode("ascii")))
    return found


def credential_of(rule: EgressRule, known: Sequence[Credential]) -> Credential | None:
    """Return the credential that a rule names; raise `Refused` (P019) when it is not there."""
    bound = rule.credential
    if bound is None:
        return None
    for one in known:
        if (one.name, one.host, one.header) == (bound.secret, rule.host, bound.header.encode("ascii")):
            return one
    raise Refused("CSM-P019", "the secret of this rule is missing", host=rule.host)
