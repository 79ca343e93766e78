"""Safe outputs: each becomes a declared output with a schema of its own, a quota, scans, and where needed a person."""

from __future__ import annotations

import copy
import re
from typing import Any

from policies.events import clean
from sandbox.compiler.repositories import BRANCH
from sandbox.importer import patches
from sandbox.importer.draft import Draft, Output
from sandbox.importer.kinds import KINDS, OutputKind
from sandbox.importer.limits import LimitReader
from sandbox.importer.notes import Kind, Ledger
from sandbox.importer.source import mapping
from sandbox.language.findings import Path

_REPOSITORY = re.compile(r"[A-Za-z0-9_.-]{1,100}/[A-Za-z0-9_.-]{1,100}\Z")
_TOKEN = re.compile(r"\$\{\{\s*secrets\.([A-Za-z_][A-Za-z0-9_]{0,99})")
_BASE = {False: "main", True: "BRANCH"}
"""The branch that a patch is made for, where the original names none; by whether it is one of a pull request."""
_HELD = "held for a person (approval: always), who has to see to this"

# key directly under safe-outputs: class, whether it limits somebody, what became of it
GLOBAL: dict[str, tuple[Kind, bool, str]] = {
    "messages": (Kind.NONE, False, "nothing is posted when a run starts or ends"),
    "footer": (Kind.NONE, False, "nothing is appended to what the agent proposes"),
    "runs-on": (Kind.NONE, False, "customs runs on the same host"),
    "env": (Kind.STRICTER, False, "customs takes no variables"),
    "steps": (Kind.NONE, False, "do this before you call `casemate apply`"),
    "jobs": (Kind.NONE, False, "declare an output with sink kind mcp or http for each"),
    "scripts": (Kind.NONE, False, "declare an output with sink kind mcp or http for each"),
    "actions": (Kind.NONE, False, "declare an output with sink kind mcp or http for each"),
    "report-failed-jobs": (Kind.NONE, False, "the exit code and `casemate show` tell how a run ended"),
    "report-failure-as-issue": (Kind.NONE, False, "the exit code and `casemate show` tell how a run ended"),
    "missing-data": (Kind.APPROXIMATED, False, "the write server's report_incomplete"),
    "missing-tool": (Kind.APPROXIMATED, False, "the write server's report_incomplete"),
    "report-incomplete": (Kind.APPROXIMATED, False, "the write server's report_incomplete"),
    "noop": (Kind.APPROXIMATED, False, "the write server's noop, which cannot be switched off"),
    "github-app": (Kind.APPROXIMATED, False, "no token is minted; sinks use a secret that only customs holds"),
    "app": (Kind.APPROXIMATED, False, "no token is minted; sinks use a secret that only customs holds"),
    "environment": (Kind.NONE, True, "ask for the same reviewers before `casemate apply`"),
    "concurrency-group": (Kind.NONE, True, "apply one run at a time"),
    "group-reports": (Kind.NONE, False, "nothing is posted"),
}
_HOLDING = {
    "staged": f"every write is {_HELD}; `casemate run --dry-run` applies nothing",
    "allowed-domains": f"links are scanned, but not against this list: every write is {_HELD}",
    "allowed-github-references": f"references are not rewritten: every write is {_HELD}",
    "mentions": f"mentions are not rewritten: every write is {_HELD}",
    "max-bot-mentions": f"mentions are not counted: every write is {_HELD}",
}


def read_safe_outputs(value: Any, ledger: Ledger, draft: Draft) -> None:
    """Note `safe-outputs:` key by key, and declare the outputs. An output that the draft has already stands."""
    settings = mapping(value)
    token = _token(settings.get("github-token"))
    for key, item in settings.items():
        where: Path = ("safe-outputs", key)
        if key in KINDS:
            _output(key, item, where, settings, token, ledger, draft)
        elif key in GLOBAL:
            kind, restriction, text = GLOBAL[key]
            ledger.add(where, kind, text, restriction=restriction)
        elif key in _HOLDING:
            if key == "staged" and item is False:
                ledger.mapped(where, "writes are applied")
            else:
                draft.hold_all.append(key)
                ledger.approximated(where, _HOLDING[key])
        elif key == "github-token":
            ledger.approximated(where, "secrets that only customs holds, one for each destination")
        elif key == "max-patch-size":
            _patch_size(item, where, ledger)
        elif key == "threat-detection":
            _detection(item, where, ledger)
    if settings and "threat-detection" not in settings:
        text = "the original lets a model look at the writes; here customs scans them by fixed rules"
        ledger.implied(("safe-outputs", "threat-detection"), Kind.APPROXIMATED, text)


def _patch_size(item: Any, where: Path, ledger: Ledger) -> None:
    if type(item) is int and item >= 256:
        ledger.stricter(where, "256 KiB a patch, as sink.patch.bytes has it when nothing is said")
    else:
        ledger.blocked(where, "not a size that is known here: set sink.patch.bytes")


def _detection(item: Any, where: Path, ledger: Ledger) -> None:
    if item is False:
        ledger.stricter(where, "scans cannot be switched off by the workflow's author for the run's own secrets")
    elif isinstance(item, dict) and item:
        ledger.blocked(
            where, "own prompts, steps and engines of the detection do not run: add a stage, or look yourself"
        )
    else:
        ledger.approximated(where, "customs scans by fixed rules: secrets, pii, unicode, links")


def _token(value: Any) -> str:
    found = _TOKEN.search(str(value)[:1000])
    return found.group(1) if found else "GITHUB_WRITE_TOKEN"


def _output(
    key: str, item: Any, where: Path, all_settings: dict[str, Any], token: str, ledger: Ledger, draft: Draft
) -> None:
    kind = KINDS[key]
    name = key.replace("-", "_")[:40]
    if item is False:
        draft.refused.add(name)
        ledger.mapped(where, "not declared, so not possible")
        return
    if name in draft.outputs or name in draft.refused:
        ledger.stricter(where, f"what the importing file says of {key} stands")
        return
    settings = {kind.names: item} if isinstance(item, list) and kind.names else mapping(item)
    output = Output(
        name=name,
        sink={},
        properties=copy.deepcopy(kind.fields),
        required=list(kind.required),
        per_run=kind.most,
        title=f"One {key.replace('-', ' ')}, as an agent may propose it",
        approval=kind.approval,
    )
    if not settings:
        ledger.mapped(where, f"outputs.{name}")
    elif not isinstance(item, list):
        ledger.mapped(where, f"outputs.{name}", whole=False)
    if "github-token" in settings:
        token = _token(settings["github-token"])
    if kind.enabled_by_key:
        _enable(kind, settings, output)
    draft.outputs[name] = output
    LimitReader(key, kind, output, ledger, where).read(settings, written=isinstance(item, dict))
    ledger.mapped(where, f"outputs.{name}")
    if kind.sink == "git":
        sized = "max-patch-size" in settings or "max-patch-size" in all_settings
        patches.defaults(settings, where, ledger, output, opens=not kind.targeted, sized=sized)
    output.sink = _sink(key, kind, settings, output)
    output.sink["secret"] = draft.secret(f"write_{name}", token)
    _defaults(kind, settings, where, ledger, output)


def _enable(kind: OutputKind, settings: dict[str, Any], output: Output) -> None:
    """Keep the fields that the original switches on one by one."""
    renamed = {"status": "state"}
    for key in kind.enabled_by_key:
        on = key in settings and settings[key] is not False
        on = on or (key == "labels" and "allowed-labels" in settings)
        if not on:
            output.properties.pop(renamed.get(key, key), None)
    if "body" not in output.properties:
        output.properties.pop("operation", None)
    if not output.properties:
        output.properties["reason"] = {"type": "string", "maxLength": 1000}


def _sink(key: str, kind: OutputKind, settings: dict[str, Any], output: Output) -> dict[str, Any]:
    target = settings.get("target-repo")
    repository = target if isinstance(target, str) and _REPOSITORY.match(target) else "OWNER/REPO"
    if kind.sink == "git":
        base = settings.get("base-branch")
        known = isinstance(base, str) and BRANCH.fullmatch(base) and not kind.targeted
        return patches.sink(
            output, f"https://github.com/{repository}.git", str(base) if known else _BASE[kind.targeted]
        )
    wanted = str(settings.get("target", "triggering"))
    number = wanted if wanted.isascii() and wanted.isdigit() and len(wanted) < 12 else "NUMBER"
    if kind.targeted and wanted == "*":
        output.properties["number"] = {"type": "integer", "minimum": 1}
        output.required.append("number")
        return {"kind": "http", "url": f"https://github-writer.example.com/{repository}/{key}"}
    if kind.api:
        return {"kind": "http", "url": f"https://api.github.com/repos/{repository}/{kind.api.format(number=number)}"}
    tail = f"/{number}" if kind.targeted else ""
    return {"kind": "http", "url": f"https://github-writer.example.com/{repository}/{key}{tail}"}


def _defaults(kind: OutputKind, settings: dict[str, Any], where: Path, ledger: Ledger, output: Output) -> None:
    if "max" not in settings:
        ledger.implied((*where, "max"), Kind.MAPPED, f"quota.per_run: {output.per_run}, the original's default")
    if kind.targeted and "target" not in settings:
        text = "tied to one item, as by default: write its number (or branch) in the place of NUMBER (or BRANCH)"
        ledger.implied((*where, "target"), Kind.MAPPED, text)
    if "target-repo" not in settings:
        url = clean(str(output.sink.get("url", output.sink.get("repository", ""))), 120)
        text = f"write your repository in the place of OWNER/REPO in {url}"
        if "github-writer" in url:
            text += ", and a receiver of yours in the place of the host: GitHub has no POST of this form"
        ledger.implied((*where, "target-repo"), Kind.APPROXIMATED, text)
