"""links: where a text leads, judged as a browser would; and what a viewer would execute, fetch or compute."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import ada_url

from gateway.customs.checks.base import TextCheck
from policies.hosts import matches
from policies.plan import Output

_URL: Final = re.compile(
    r"(?:\b[A-Za-z][A-Za-z0-9+.-]{1,30}:[\\/]{1,4}|(?<![\w:/\\.])[\\/]{2}(?=[\w-]{1,63}\.[\w.-]*[^\W\d]{2})|\bwww\.)[^\s\"'<>`|^{}\x00)]+"
)
_SCRIPTS: Final = re.compile(r"\b(?:java|vb|live)script\s*:|\bdata:[\w.+-]+/[\w.+-]+[;,]", re.IGNORECASE)
_HTML: Final = re.compile(
    r"<\s*/?\s*(?:script|iframe|frame|object|embed|applet|svg|math|link|meta|base|form|style|img|video|audio|source)(?=[\s/>])"
    r"|<[^>]{0,200}\son[a-z]{3,20}\s*=",
    re.IGNORECASE,
)
_MARKDOWN_IMAGE: Final = re.compile(r"!\[[^\]]{0,500}\]\s{0,3}[(\[]")
_FORMULA: Final = re.compile(
    r"\s*(?:=[\w(+\-\"'@]|[+@-]\s*[A-Za-z_]{2,30}\s*\(|[+-]\s*\d[\d.]*(?:\s*[+*/^-]\s*\d+)*\s*[+*/^-]\s*[A-Za-z]{2,30}[(!|])"
)
_ESCAPE: Final = re.compile("[\x1b\x9b]")
_MENTION: Final = re.compile(r"(?<![\w.@/`-])@[A-Za-z0-9][A-Za-z0-9-]{0,38}(?:/[\w.-]{1,60})?(?![\w@.-]*\()")
_CLOSING: Final = re.compile(
    r"\b(?:clos(?:e[sd]?|ing)|fix(?:e[sd]|ing)?|resolv(?:e[sd]?|ing)|implement(?:s|ed|ing)?|merge[sd]?)"
    r"\s*:?\s*(?:issues?\s+)?(?:[\w.-]+/[\w.-]+)?#\d+",
    re.IGNORECASE,
)
_SCHEMES: Final = frozenset({"ftp", "http", "https", "ws", "wss"})
"""Schemes of which a browser expects a host, however the rest is written."""
_SPACES: Final = r"[\s\x1c\x1d\x1f]*"
"""What Python takes for whitespace, but for the mark of a row."""
SIEVE: Final = (
    r"[A-Za-z0-9+.-]:[\\/]",
    r"[\\/]{2}[A-Za-z0-9_\[\x80-]",
    r"(?i)www\.",
    rf"(?i)script{_SPACES}:",
    r"(?i)data:[a-z0-9_.+\x80-]",
    r"<[^>]{0,200}[A-Za-z]",
    r"!\[",
    r"\x1b",
    r"@[A-Za-z0-9]",
    r"#[0-9]",
)
STARTS: Final = (rf"(?:^|[\x00\x1e]){_SPACES}[=+@-]",)
"""Patterns over folded text of which one matches wherever a rule does."""


class Links(TextCheck):
    """Objects (CSM-W012) to links that lead elsewhere than `hosts`, and to active content.

    Mentions and words that close an issue count where the sink is a forge, but for `code`, of which it does not speak.
    """

    name, code = "links", "CSM-W012"

    def __init__(self, output: Output, *, code: bool = False) -> None:
        self._hosts, self._forge = output.hosts, output.sink == "git" and not code

    def broken(self, text: str) -> Iterator[str]:
        """Yield the rules that a text breaks."""
        for found in _URL.finditer(text):
            if (host := _host(found.group())) is not None and not self._allowed(host):
                yield f"link to {host[:100] or 'nowhere that can be read'}"
                break
        rules = {"script": _SCRIPTS, "html": _HTML, "image": _MARKDOWN_IMAGE, "escape": _ESCAPE}
        yield from (name for name, rule in rules.items() if rule.search(text))
        if _FORMULA.match(text):
            yield "formula"
        if self._forge:
            yield from (n for n, r in {"mention": _MENTION, "closing": _CLOSING}.items() if r.search(text))

    def _allowed(self, host: str) -> bool:
        return any(matches(host, pattern) for pattern in self._hosts)


def _host(text: str) -> str | None:
    """Return the host that a browser would connect to; None where it would to none, "" for what it could not read."""
    link = f"https:{text}" if text[0] in "/\\" else f"https://{text}" if text[:4].lower() == "www." else text
    try:
        url = ada_url.URL(link.rstrip(".,;:!?"))
    except ValueError:
        return "" if link.partition(":")[0].lower() in _SCHEMES else None
    return str(url.hostname) or None
