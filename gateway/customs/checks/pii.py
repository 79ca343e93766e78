"""pii: what names or reaches a person. Patterns propose, and checksums, plans of numbers and context decide."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import phonenumbers
from stdnum import iban, luhn
from stdnum.br import cpf
from stdnum.cn import ric
from stdnum.es import dni, nie
from stdnum.fr import nir
from stdnum.it import codicefiscale
from stdnum.us import ssn

from gateway.customs.checks.base import TextCheck
from gateway.customs.scan.plane import folded

_RESERVED: Final = re.compile(
    r"(?:^|[@.])(?:example\.(?:com|net|org)|example|test|invalid|localhost|local)$", re.IGNORECASE
)
_NOBODY: Final = re.compile(r"^(?:git|noreply|no-reply|user|username|root)@", re.IGNORECASE)
_ISSUERS: Final = re.compile(
    r"4\d{12}(?:\d{3}){0,2}|5[1-5]\d{14}|2(?:2[2-9]|[3-6]\d|7[01])\d{13}|3[47]\d{13}|6(?:011|5\d\d)\d{12}|35[2-8]\d{13}"
)


@dataclass(frozen=True, slots=True)
class Rule:
    """A kind of personal data: what it looks like, and whether something that does is one."""

    name: str
    pattern: re.Pattern[str]
    holds: Callable[[str], bool]


def _email(text: str) -> bool:
    return not _RESERVED.search(text) and not _NOBODY.search(text)


def _phone(region: str | None) -> Callable[[str], bool]:
    def holds(text: str) -> bool:
        try:
            return phonenumbers.is_valid_number(phonenumbers.parse(text, region))
        except phonenumbers.NumberParseException:
            return False

    return holds


def _card(text: str) -> bool:
    digits = re.sub(r"[ -]", "", text)
    return bool(_ISSUERS.fullmatch(digits)) and luhn.is_valid(digits) and len(set(digits)) > 1


def _address(text: str) -> bool:
    """Tell whether a text is a public address. Numbers of versions look alike, but have small parts."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return address.is_global and (address.version == 6 or max(address.packed) >= 100)


def _valid(module: object) -> Callable[[str], bool]:
    is_valid = module.is_valid  # type: ignore[attr-defined]
    return lambda text: bool(is_valid(text))


RULES: Final = (
    Rule("email", re.compile(r"\b[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}\b"), _email),
    Rule("phone", re.compile(r"(?<![\w+.])\+[1-9][0-9 ()./-]{6,22}[0-9](?![\w-])"), _phone(None)),
    Rule(
        "phone",
        re.compile(r"(?<![\w+./-])(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[-.])[2-9]\d{2}[-.]\d{4}(?![\w./-])"),
        _phone("US"),
    ),
    Rule("card", re.compile(r"(?<![\w.-])[2-6]\d{3}(?:[ -]?\d{4}){2}[ -]?\d{1,7}(?![\w-]|\.\d)"), _card),
    Rule("card", re.compile(r"(?<![\w.-])3[47]\d{2}[ -]?\d{6}[ -]?\d{5}(?![\w-]|\.\d)"), _card),
    Rule("iban", re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?!\w)"), _valid(iban)),
    Rule("us-ssn", re.compile(r"(?<![\w-])(?!9)\d{3}-\d{2}-\d{4}(?![\w-])"), _valid(ssn)),
    Rule("fr-nir", re.compile(r"(?<![\w.])[12] ?\d{2} ?[01]\d ?[0-9]{2} ?\d{3} ?\d{3} ?\d{2}(?!\w|\.\d)"), _valid(nir)),
    Rule("es-dni", re.compile(r"(?<![\w.])\d{8}-?[A-HJ-NP-TV-Z](?!\w)"), _valid(dni)),
    Rule("es-nie", re.compile(r"(?<![\w.])[XYZ]-?\d{7}-?[A-HJ-NP-TV-Z](?!\w)"), _valid(nie)),
    Rule("it-cf", re.compile(r"(?<!\w)[A-Z]{6}\d{2}[A-EHLMPRST]\d{2}[A-Z]\d{3}[A-Z](?!\w)"), _valid(codicefiscale)),
    Rule("br-cpf", re.compile(r"(?<!\w)\d{3}\.\d{3}\.\d{3}-\d{2}(?!\w)"), _valid(cpf)),
    Rule("cn-ric", re.compile(r"(?<![\w.])[1-9]\d{5}(?:19|20)\d{2}[01]\d[0-3]\d\d{3}[0-9X](?!\w)"), _valid(ric)),
    Rule("ip", re.compile(r"(?<![\w.-])(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\d)"), _address),
    Rule("ip", re.compile(r"(?<![\w:.])(?:[0-9a-fA-F]{1,4}:){2,7}(?::?[0-9a-fA-F]{1,4}){1,7}(?![\w:])"), _address),
)
SIEVE: Final = (
    r"@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2}",
    r"\+[1-9][0-9 ()./-]{6,22}[0-9]",
    r"\d{3}[).-] ?\d{3}[.-]\d{4}",
    r"[2-6]\d{3}(?:[ -]?\d{4}){2}",
    r"3[47]\d{2}[ -]?\d{6}[ -]?\d{5}",
    r"[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2}",
    r"\d{3}-\d{2}-\d{4}",
    r"[12] ?\d{2} ?[01]\d ?\d{2} ?\d{3} ?\d{3} ?\d{2}",
    r"\d{7}-?[A-Z]",
    r"[A-Z]{6}\d{2}[A-Z]\d{2}[A-Z]\d{3}[A-Z]",
    r"\d{3}\.\d{3}\.\d{3}-\d{2}",
    r"(?:\d{1,3}\.){3}\d",
    r"(?:[0-9a-fA-F]{1,4}:){2,7}:?[0-9a-fA-F]",
)
"""Patterns over folded text of which one matches wherever a rule does."""
LEADS: Final = (SIEVE[0], SIEVE[1], r"\d\.\d{1,3}\.\d", SIEVE[-1])
LEADS_OF_DIGITS: Final = (
    r"(?:^|[^0-9])(?:\d[ .()/-]{0,2}){9}",  # no rule begins within a number
    r"\d{7}-?[A-Z]",
    r"[A-Z]{2}\d{2}",
)
"""Fewer and faster ones, of which one matches wherever one of `SIEVE` does; and elsewhere."""


class Pii(TextCheck):
    """Objects (CSM-W013) to personal data in values and keys. A reason has the kind and the place, never the data."""

    name, code = "pii", "CSM-W013"

    def broken(self, text: str) -> Iterator[str]:
        """Yield the kinds of what is personal in a text."""
        return (kind for kind, _, _ in kinds(text))


def kinds(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield the kind and the span of everything personal in a text."""
    for rule in RULES:
        for found in rule.pattern.finditer(text):
            if rule.holds(found.group()):
                yield rule.name, found.start(), found.end()


def redacted(text: str) -> str:
    """Return a text in which everything personal is replaced by its kind."""
    plain = text if text.isascii() else folded(text)
    spans = sorted({(start, end, kind) for kind, start, end in kinds(plain)})
    kept, at = [], 0
    for start, end, kind in spans:
        if start >= at:
            kept += [plain[at:start], f"[{kind}]"]
            at = end
    return "".join([*kept, plain[at:]]) if kept else text
