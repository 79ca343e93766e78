"""Network: from an allow-list that includes subdomains and named sets, to egress rules that name hosts."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from policies.events import clean
from sandbox.checks.egress import host_problem
from sandbox.importer.draft import Draft
from sandbox.importer.notes import Ledger
from sandbox.importer.source import mapping
from sandbox.language.findings import Path

ECOSYSTEMS = {"python": "pip", "node": "npm", "linux-distros": "apt", "github": "git-remote"}
_RESOLVED = "the indexes and mirrors that this host's own package manager uses, not the public ones"
_SIMPLE: dict[str, str] = {
    "firewall": "the firewall is always there, and cannot be configured",
    "allowed-input": "a caller cannot widen the list",
}


def read_network(value: Any, ledger: Ledger, draft: Draft) -> None:
    """Turn `network:` into egress rules. What `blocked` says is taken off afterwards, by `read_blocked`."""
    path: Path = ("network",)
    if not isinstance(value, dict):
        if value == "defaults":
            ledger.stricter(path, "the original's infrastructure hosts stay closed; name those that you need")
        return
    if not value:
        ledger.mapped(path, "no egress")
    for key, item in value.items():
        where = (*path, key)
        if key == "allowed":
            read_allowed(item, where, ledger, draft)
        elif key == "firewall":
            _firewall(item, where, ledger)
        elif key in _SIMPLE:
            ledger.stricter(where, _SIMPLE[key])
        elif key == "hosted-web":
            ledger.blocked(where, "not limited here: switch web tools of the provider off, or limit them there")
        elif key == "mode":
            ledger.lost(where, "there is one mode: what no rule allows is denied")


def read_allowed(value: Any, where: Path, ledger: Ledger, draft: Draft) -> list[dict[str, Any]]:
    """Note each entry of an allow-list, and add the rules that it becomes. Return these rules."""
    if not isinstance(value, list):
        ledger.stricter(where, "not a list; nothing is opened")
        return []
    if not value:
        ledger.mapped(where, "no egress")
    added: list[dict[str, Any]] = []
    for index, entry in enumerate(value):
        rule = _entry(entry, (*where, index), ledger)
        if rule:
            added.append(rule)
            draft.allow(rule)
    return added


def _entry(entry: Any, path: Path, ledger: Ledger) -> dict[str, Any] | None:
    text = str(entry)
    shown = clean(text, 60)
    if isinstance(entry, str) and entry in ECOSYSTEMS:
        ledger.approximated(path, f"{shown}: ecosystem {ECOSYSTEMS[text]}: {_RESOLVED}")
        return {"ecosystem": ECOSYSTEMS[text]}
    if not isinstance(entry, str) or "." not in text or "${{" in text:
        ledger.stricter(path, f"{shown}: no set of that name here, so it stays closed; name the hosts that you need")
        return None
    scheme, _, rest = text.rpartition("://")
    try:
        parts = urlsplit(f"//{rest}")
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        host, port, parts = "", None, urlsplit("")
    bad = host_problem(host) is not None or parts.path not in ("", "/") or parts.query or parts.username
    if scheme not in ("", "http", "https") or bad or port == 0:
        ledger.stricter(path, f"{shown}: not a host that a rule can name, so it stays closed")
        return None
    rule: dict[str, Any] = {"host": host}
    if port:
        rule["port"] = port
    if scheme == "http":
        rule["scheme"] = "http"
    wide = "one label below the suffix, not more" if host.startswith("*.") else "this host only, not those below it"
    both = "" if scheme else "; https only"
    ledger.stricter(path, f"{shown}: {wide}{both}")
    return rule


def _firewall(value: Any, where: Path, ledger: Ledger) -> None:
    settings = mapping(value)
    if not settings:
        ledger.stricter(where, _SIMPLE["firewall"])
    for key in settings:
        if key == "allow-urls":
            ledger.blocked(
                (*where, key), "rules name hosts, not paths: take hosts off whose other paths must stay closed"
            )
        else:
            ledger.stricter((*where, key), _SIMPLE["firewall"])


def read_blocked(value: Any, ledger: Ledger, draft: Draft) -> None:
    """Take off every egress rule that could reach what is blocked. To be called when all rules are known."""
    blocked = mapping(value).get("blocked")
    where = ("network", "blocked")
    if "blocked" not in mapping(value):
        return
    if not isinstance(blocked, list):
        ledger.blocked(where, "not a list; see that egress has nothing of it")
        return
    for index, entry in enumerate(blocked):
        path = (*where, index)
        text = str(entry).lower().rpartition("://")[2].rstrip(".")
        shown = clean(text, 60)
        before = [rule.get("host") or rule["ecosystem"] for rule in draft.egress]
        ecosystems = [rule for rule in draft.egress if "ecosystem" in rule]
        hosts = [rule for rule in draft.egress if "host" in rule]
        if "." not in text:
            own = [rule for rule in ecosystems if rule["ecosystem"] == ECOSYSTEMS.get(text)]
            _take_off(own, draft)
            if hosts or len(own) < len(ecosystems):
                ledger.blocked(path, f"{shown}: see that no host under egress belongs to this set")
                continue
        else:
            _take_off([rule for rule in hosts if _reaches(rule["host"], text.removeprefix("*."))], draft)
            if ecosystems:
                ledger.blocked(path, f"{shown}: see that no package mirror of this host is there")
                continue
        after = {rule.get("host") or rule["ecosystem"] for rule in draft.egress}
        off = ", ".join(clean(name, 60) for name in before if name not in after)
        ledger.mapped(path, f"{shown}: no rule opens it" + (f"; taken off: {off}" if off else ""))


def _reaches(host: str, blocked: str) -> bool:
    bare = host.removeprefix("*.")
    below = bare == blocked or bare.endswith(f".{blocked}")
    return below or (bare != host and blocked.endswith(f".{bare}"))


def _take_off(rules: list[dict[str, Any]], draft: Draft) -> None:
    draft.egress = [rule for rule in draft.egress if rule not in rules]
