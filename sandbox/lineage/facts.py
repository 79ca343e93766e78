"""The edge of lineage: reads past runs, data sets, exceptions and approvers' keys. Nothing is decided here.

1. Look at every run without believing it: which outputs its plan allows, which digests its log claims, for whom.
2. Read the ones that could matter for the files and models in question, and for what those lead to, and no others.
3. A log that does not verify, or a plan that is not the one that the log was written under, gives a record with a
   problem: its claims count against a data set, never for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from policies.errors import CasemateError
from policies.events import Attribute
from policies.plan import Plan, decode
from policies.slices import seal
from policies.vocabulary import EventName
from sandbox.language.workflow import Workflow
from sandbox.lineage.case import case_of, leads_to_output
from sandbox.lineage.registry import resolve
from sandbox.lineage.types import Dataset, LineageFacts, Record, Relation, Use

if TYPE_CHECKING:  # the schema library takes long to load, and most workflows have no past run that matters
    from sandbox.records.log import RunEvent

_WRITTEN = b'"write.applied"'


class _Path(msgspec.Struct):
    path: str


class _Model(msgspec.Struct):
    model: str


class _Claim(msgspec.Struct):
    attrs: dict[str, Attribute] = {}


class _PlanView(msgspec.Struct):
    """The part of a plan that a first look needs; whatever else there is."""

    outputs: list[_Path] = []
    student: _Model | None = None


@dataclass(frozen=True, slots=True)
class _Look:
    """What a run claims, unverified."""

    folder: Path
    outputs: tuple[Dataset, ...]
    paths: frozenset[str]
    student: str | None


def gather(
    workflow: Workflow, root: Path, digests: Mapping[str, str], read: Callable[[str], bytes]
) -> LineageFacts | None:
    """Return what the disk says about a workflow's lineage, or None where it has no student.

    `digests` are of the files that could be read; `read` returns the bytes of one of the project's files, and raises
    `CasemateError` where it may not be read.
    """
    if workflow.lineage is None:
        return None
    signed: dict[str, bytes | CasemateError] = {}
    for path in workflow.lineage.exceptions:
        try:
            signed[path] = read(path)
        except CasemateError as error:
            signed[path] = error
    keys: dict[str, bytes] = {}
    for file in sorted((root / "approvers").glob("*.pub")):
        try:
            keys[file.stem] = read(f"approvers/{file.name}")
        except CasemateError:
            continue  # a key that cannot be read approves nothing
    case = case_of(workflow, digests, ())
    names = [case.student.model, *(use.model for use in case.uses)]
    records = read_records(home_of(root), (*case.inputs, *case.datasets), names)
    return LineageFacts(records=records, exceptions=signed, approvers=keys)


def read_records(home: Path, files: Iterable[Dataset], models: Iterable[str]) -> tuple[Record, ...]:
    """Return the record of every run that `files` or `models` could come from, and of those that these come from."""
    runs = home / "runs"
    looks = (
        {folder.name: _look(folder) for folder in sorted(runs.iterdir()) if folder.is_dir()} if runs.is_dir() else {}
    )
    records: dict[str, Record] = {}
    digests = {item.digest for item in files}
    paths = {item.path for item in files}
    names = {_id(model) for model in models}
    fresh = True
    while fresh:
        fresh = False
        for run, look in looks.items():
            claims = {output.digest for output in look.outputs}
            if run in records or not (claims & digests or look.paths & paths or (look.student in names)):
                continue
            record = records[run] = read_record(look.folder)
            digests |= {item.digest for item in record.inputs} | {item.digest for item in record.outputs}
            paths |= {item.path for item in record.inputs}
            names |= {_id(use.model) for use in record.uses}
            fresh = True
    return tuple(records[run] for run in sorted(records))


def read_record(folder: Path) -> Record:
    """Return one run's record, after verifying its log and its plan against each other."""
    from sandbox.records.log import read_events, verify

    try:
        verify(folder)
        plan = decode((folder / "plan.json").read_bytes(), Plan)
        events = list(read_events(folder))
        if any(event.plan != seal(plan).plan or event.run != folder.name for event in events[:1]):
            raise CasemateError("CSM-R011", "its plan is not the one that the log was written under")  # noqa: TRY301
    except (CasemateError, OSError) as error:
        problem = error.message if isinstance(error, CasemateError) else f"{error.filename}: {error.strerror}"
        look = _look(folder)
        outputs = (*look.outputs, *(Dataset(path=path, digest=None) for path in sorted(look.paths)))
        return Record(run=folder.name, plan="", problem=problem, student=look.student, outputs=outputs)
    return Record(
        run=folder.name,
        plan=events[0].plan if events else "",
        student=_id(plan.student.model) if plan.student else None,
        uses=_uses(plan, events),
        inputs=tuple(Dataset(path=item.path, digest=item.digest) for item in plan.inputs),
        outputs=_applied(events),
    )


def home_of(root: Path) -> Path:
    """Return where the runs of a project lie."""
    home = os.environ.get("CASEMATE_HOME")
    return Path(home) if home else root / ".casemate"


def _look(folder: Path) -> _Look:
    """Rule 1: read the claims only; a line that cannot be read claims nothing."""
    claimed: dict[Dataset, None] = {}
    try:
        with (folder / "events.jsonl").open("rb") as stream:
            for line in stream:
                if _WRITTEN in line:
                    claimed.update(dict.fromkeys(_claims(line)))
    except OSError:
        pass  # a run without a log wrote nothing that could be known; its plan may still name the path
    paths, student = _view(folder)
    return _Look(folder, tuple(claimed), paths | {item.path for item in claimed}, student)


def _claims(line: bytes) -> Iterator[Dataset]:
    try:
        attrs = msgspec.json.decode(line, type=_Claim).attrs
    except msgspec.DecodeError:
        return
    path, found = attrs.get("casemate.path"), attrs.get("casemate.digest")
    if isinstance(path, str) and isinstance(found, str):
        yield Dataset(path=path, digest=found)


def _view(folder: Path) -> tuple[frozenset[str], str | None]:
    """Return the output paths of a run's plan and the id of its student."""
    try:
        view = msgspec.json.decode((folder / "plan.json").read_bytes(), type=_PlanView)
    except (OSError, msgspec.DecodeError):
        return frozenset(), None
    return frozenset(item.path for item in view.outputs), _id(view.student.model) if view.student else None


def _applied(events: Iterable[RunEvent]) -> tuple[Dataset, ...]:
    """Return what a verified log says was put in place. A file without a row carries nothing from anybody."""
    found: dict[Dataset, None] = {}
    for event in events:
        path, content = event.attrs.get("casemate.path"), event.attrs.get("casemate.digest")
        rows = event.attrs.get("casemate.write.count")
        if event.event is EventName.WRITE_APPLIED and isinstance(path, str) and isinstance(content, str) and rows != 0:
            found[Dataset(path=path, digest=content)] = None
    return tuple(found)


def _uses(plan: Plan, events: Iterable[RunEvent]) -> tuple[Use, ...]:
    """Return which models answered which stages, by the name under which they answered, and how much they wrote.

    A call that broke off before a name came is the planned model's: the proxy hands on no other one's words.
    """
    planned = {model.alias: model.model for model in plan.models}
    leading = leads_to_output({stage.name: (stage.needs, bool(stage.outputs)) for stage in plan.stages})
    tokens: dict[tuple[str, Relation], int] = {}
    for event in events:
        wrote = event.attrs.get("gen_ai.usage.output_tokens")
        answered = event.attrs.get("gen_ai.response.model")
        if event.event is not EventName.LLM_SETTLED or not (answered or wrote):
            continue
        alias = str(event.attrs.get("gen_ai.request.model"))
        relation = Relation.GENERATED_BY if event.stage in leading else Relation.JUDGED_BY
        key = (str(answered or planned.get(alias, f"unnamed model of {alias}")), relation)
        tokens[key] = tokens.get(key, 0) + (wrote if isinstance(wrote, int) else 0)
    return tuple(Use(model=name, relation=relation, tokens=count) for (name, relation), count in tokens.items())


def _id(name: str) -> str:
    entry = resolve(name)
    return entry.id if entry else name
