"""GitHub Agentic Workflows: one Markdown file becomes a workflow, a prompt, schemas, and a note for every key.

1. The file is taken apart; its frontmatter is parsed as strictly as a workflow of ours.
2. Its keys are read, topic by topic; then those of the files that it imports, which never override it.
3. What is blocked is taken off the egress rules, when all of them are known.
4. Each ledger is closed: a key that nobody has spoken of becomes an unknown restriction.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from dataclasses import dataclass, field

from policies.events import clean
from sandbox.importer.draft import Draft, files_of
from sandbox.importer.network import read_blocked, read_network
from sandbox.importer.notes import Imported, Kind, Ledger, Note
from sandbox.importer.prompt import DATA, EXPRESSION, PROMPT, directives, locate, read_prompt
from sandbox.importer.safe_outputs import read_safe_outputs
from sandbox.importer.source import mapping, slug, split
from sandbox.importer.tools import read_servers, read_tools
from sandbox.importer.top import FIXED, READERS, read_defaults, read_top
from sandbox.importer.triggers import read_on
from sandbox.language.findings import FindingsError, Path

MAX_IMPORTS = 50
MAX_DEPTH = 8
# what an imported file may add; the rest of its keys is ignored by the original too
SHARED = frozenset(
    {"tools", "mcp-servers", "safe-outputs", "network", "permissions", "env", "steps", "pre-steps", "pre-agent-steps",
     "post-steps", "services", "runtimes", "plugins", "secret-masking", "mcp-scripts", "safe-inputs", "github-app",
     "checkout", "import-schema", "description", "ambient-folders", "cache", "imports", "skills"}
)  # fmt: skip

IGNORED = frozenset({*FIXED, *READERS}) - SHARED

Read = Callable[[str], bytes | None]


@dataclass(slots=True)
class _Job:
    """One import as it proceeds. `done`: files that are in already; a file is taken once."""

    read: Read
    draft: Draft
    done: set[str] = field(default_factory=set)
    ledgers: list[Ledger] = field(default_factory=list)


def import_gh_aw(text: bytes, file: str, *, read: Read) -> Imported:
    """Return the new workflow's files and a note for each key.

    `read` returns the bytes of a file beside the imported one, by relative path, or None. Raises `FindingsError`.
    """
    parts = split(text, file)
    name = slug(posixpath.basename(file).removesuffix(".md"))
    job = _Job(read, Draft(name=name, comments=[f"Imported from {clean(file, 100)}."]))
    ledger = Ledger(parts.document)
    job.ledgers.append(ledger)
    data = mapping(parts.document.data)
    read_top(data, ledger, job.draft)
    read_defaults(data, ledger)
    if "on" in data:
        read_on(data["on"], ledger, job.draft)
    _shared(data, ledger, job.draft)
    _imports(data, ledger, job, file, 0)
    body = _inline(read_prompt(parts.body, parts.hidden, ledger), ledger, job, file, 0)
    job.draft.texts.append(body)
    if any(EXPRESSION.search(text) for text in job.draft.texts):
        job.draft.texts.append(DATA)
    for each in job.ledgers:
        read_blocked(mapping(each.document.data).get("network"), each, job.draft)
    notes = [note for each in job.ledgers for note in each.close()]
    return Imported(files_of(job.draft), notes)


def _shared(data: dict[str, object], ledger: Ledger, draft: Draft) -> None:
    if "network" in data:
        read_network(data["network"], ledger, draft)
    if "tools" in data:
        read_tools(data["tools"], ledger, draft)
    if "mcp-servers" in data:
        read_servers(data["mcp-servers"], ledger, draft)
    if "safe-outputs" in data:
        read_safe_outputs(data["safe-outputs"], ledger, draft)


def _imports(data: dict[str, object], ledger: Ledger, job: _Job, base: str, depth: int) -> None:
    """Take in what `imports:` names. A file that cannot be read may have held restrictions, so it is one."""
    value = data.get("imports")
    where: Path = ("imports", "aw") if isinstance(value, dict) else ("imports",)
    entries = mapping(value).get("aw") if isinstance(value, dict) else value
    if not isinstance(entries, list):
        return
    for index, entry in enumerate(entries):
        path = (*where, index)
        wanted = mapping(entry).get("uses", mapping(entry).get("path", entry))
        if isinstance(wanted, str):
            _take(wanted.removesuffix("?"), wanted.endswith("?"), path, ledger, job, base, depth)


def _inline(body: str, ledger: Ledger, job: _Job, base: str, depth: int) -> str:
    for written, wanted, optional in directives(body)[:MAX_IMPORTS]:
        _take(wanted, optional, (PROMPT, written), ledger, job, base, depth, key=f"prompt: {clean(written, 120)}")
    return body


def _take(
    wanted: str, optional: bool, where: Path, ledger: Ledger, job: _Job, base: str, depth: int, key: str | None = None
) -> None:
    shown = clean(wanted, 120)
    text: bytes | None = None
    found = ""
    for place in locate(wanted, base) if depth < MAX_DEPTH and len(job.done) < MAX_IMPORTS else ():
        if place in job.done:
            ledger.add(where, Kind.MAPPED, f"{shown}: taken in once already", implied=key is not None, key=key)
            return
        text, found = job.read(place), place
        if text is not None:
            break
    if text is None:
        if optional:
            ledger.add(where, Kind.MAPPED, f"{shown}: optional, and not there", implied=key is not None, key=key)
            return
        said = f"{shown} is not a file beside this one: see what it limits, fetch it, and import again"
        ledger.add(where, Kind.NONE, said, restriction=True, implied=key is not None, key=key)
        return
    job.done.add(found)
    try:
        parts = split(text, found, bare=True)
    except FindingsError as error:
        said = f"{shown} cannot be understood: {error.findings[0].render().splitlines()[0]}"
        ledger.add(where, Kind.NONE, said, restriction=True, implied=key is not None, key=key)
        return
    said = f"{shown}: taken in; its keys are noted under its name"
    if key is None and isinstance(ledger.document.data, dict) and isinstance(_at(ledger.document.data, where), dict):
        said += "; arguments are not filled in"
    ledger.add(where, Kind.APPROXIMATED, said, implied=key is not None, key=key)
    inner = Ledger(parts.document, prefix=f"{clean(found, 120)}:")
    job.ledgers.append(inner)
    data = mapping(parts.document.data)
    for name in sorted(IGNORED & data.keys()):
        inner.add((name,), Kind.NONE, "the original takes no such key from an import")
    if "on" in data:
        read_on(data["on"], inner, job.draft)
    wall, calls = job.draft.wall_minutes, job.draft.calls
    read_top({name: value for name, value in data.items() if name in SHARED}, inner, job.draft)
    job.draft.wall_minutes, job.draft.calls = wall, calls
    _shared({name: value for name, value in data.items() if name in SHARED}, inner, job.draft)
    _imports(data, inner, job, found, depth + 1)
    job.draft.texts.append(_inline(read_prompt(parts.body, parts.hidden, inner), inner, job, found, depth + 1))


def _at(data: object, path: Path) -> object:
    for part in path:
        data = data[part] if isinstance(data, dict | list) else None  # type: ignore[index]
    return data


_ORDER = (Kind.NONE, Kind.STRICTER, Kind.APPROXIMATED, Kind.MAPPED)
_TITLES = {
    Kind.NONE: "No equivalent, of convenience only",
    Kind.STRICTER: "Stricter here",
    Kind.APPROXIMATED: "Approximated",
    Kind.MAPPED: "Mapped",
}


def render(imported: Imported) -> str:
    """Return a report that people read: lost restrictions first, then class by class."""
    blocking = [note for note in imported.notes if note.blocking]
    lines = [f"files: {', '.join(sorted(imported.files))}"]
    if blocking:
        lines += [
            "",
            f"RESTRICTIONS WITHOUT AN EQUIVALENT ({len(blocking)}): accept each by --accept KEY, or do as it says",
        ]
        lines += [_line(note) for note in blocking]
    for kind in _ORDER:
        notes = [note for note in imported.notes if note.kind is kind and not note.blocking]
        if notes:
            lines += ["", f"{_TITLES[kind]} ({len(notes)})", *(_line(note) for note in notes)]
    return "\n".join(lines) + "\n"


def _line(note: Note) -> str:
    implied = ", by default" if note.implied and not note.key.startswith("prompt") else ""
    return f"  {note.key}{implied} ({note.file}:{note.line}:{note.column}): {note.text}"
