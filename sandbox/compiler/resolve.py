"""Resolve: reads the files that a workflow names, and nothing outside the project.

The compiler is pure; this is its edge.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from policies.canonical import Json, StrictJsonError, digest, strict_loads
from policies.errors import CasemateError
from policies.plan import Distribution, Pin
from policies.probes import LEAST, read_probes, tells
from sandbox.baseline import policies_digest
from sandbox.compiler.certificates import certificates
from sandbox.compiler.ecosystems import ecosystem_hosts
from sandbox.compiler.prices import Listed, listed, version
from sandbox.files import MAX_INPUT, read_inside
from sandbox.language.source import HIDDEN
from sandbox.language.workflow import Workflow
from sandbox.lineage.registry import FOLDER
from sandbox.mcp.pins import NAME as PINS
from sandbox.mcp.pins import read_pins
from sandbox.records.anchors import NAME as ANCHORS
from sandbox.records.anchors import read_anchors
from sandbox.topology.shards import count_items

if TYPE_CHECKING:
    from sandbox.lineage.types import LineageFacts

MAX_SCHEMA = 1 << 20
HOW_TO_MAKE_A_KEY = (
    "openssl genpkey -algorithm ed25519 -out me.key; openssl pkey -in me.key -pubout -out approvers/me.pub"
)
PROMPTS = {".md", ".txt", ".prompt", ".prompty", ".yaml", ".yml"}


@dataclass(frozen=True, slots=True)
class FileFact:
    """A file as it was read: digest, size in bytes, and line, column and name of its first hidden character.

    `items` is how many there are to be spread over shards; None where no stage does.
    """

    digest: str
    size: int
    hidden: tuple[int, int, str] | None = None
    items: int | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What the world says about a workflow: files, schemas by output, images, and what could not be read (by path).

    `prices`, by alias, are of the models for which the workflow states none; `price_source` is where they come from.
    `keys`: the public keys, in hex, of those who approve writes, by name.
    """

    files: Mapping[str, FileFact] = field(default_factory=dict)
    schemas: Mapping[str, Json] = field(default_factory=dict)
    images: Mapping[str, str | None] = field(default_factory=dict)
    problems: Mapping[str, CasemateError] = field(default_factory=dict)
    ecosystems: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    trust: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    pins: Mapping[str, tuple[Pin, ...]] = field(default_factory=dict)
    anchors: Mapping[str, Mapping[str, Distribution]] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    registry: str | None = None
    policies: str | None = None
    prices: Mapping[str, Listed] = field(default_factory=dict)
    price_source: str | None = None
    lineage: LineageFacts | None = None
    exposure: str | None = None
    host_cpus: int | None = None
    host_memory: int | None = None
    today: date = field(default_factory=date.today)


def resolve(
    workflow: Workflow, root: Path, images: Mapping[str, str | None], fragments: Mapping[str, str] | None = None
) -> Facts:
    """Read every file that `workflow` names. What cannot be read becomes a problem, not an exception."""
    files = {path: FileFact(pinned, 0) for path, pinned in (fragments or {}).items()}
    schemas: dict[str, Json] = {}
    problems: dict[str, CasemateError] = {}
    spread = {stage.shards.over for stage in workflow.stages if stage.shards is not None}
    for name, item in workflow.inputs.items():
        try:
            data = read_inside(root, item.path, MAX_INPUT)
        except CasemateError as error:
            problems[item.path] = error
        else:
            items = count_items(data, item.path) if name in spread else None
            files[item.path] = FileFact(digest(data), len(data), _hidden(item.path, data), items)
    extra = workflow.lineage.exceptions + workflow.lineage.datasets if workflow.lineage else []
    for path in extra:
        try:
            data = read_inside(root, path, MAX_INPUT)
        except CasemateError as error:
            problems[path] = error
        else:
            files[path] = FileFact(digest(data), len(data))
    for name, output in workflow.outputs.items():
        try:
            data = read_inside(root, output.schema, MAX_SCHEMA)
            files[output.schema] = FileFact(digest(data), len(data))
            schemas[name] = strict_loads(data)
        except CasemateError as error:
            problems[output.schema] = error
        except StrictJsonError as error:
            problems[output.schema] = CasemateError("CSM-C016", f'"{output.schema}" is not JSON: {error}')
    _probes(workflow, root, files, problems)
    pins = _pins(workflow, root, problems)
    trust = _trust(workflow, root, files, problems)
    wanted = {rule.ecosystem for stage in workflow.stages for rule in stage.egress if rule.ecosystem}
    wanted |= {rule.ecosystem for tool in workflow.tools.values() for rule in tool.egress if rule.ecosystem}
    prices = _prices(workflow, datetime.now(UTC).date())
    facts = Facts(
        files=files,
        schemas=schemas,
        images=images,
        problems=problems,
        ecosystems={name: ecosystem_hosts(name, root) for name in sorted(wanted)},
        trust=trust,
        pins=pins,
        anchors=_anchors(workflow, root, problems),
        keys=_keys(workflow, root, problems),
        registry=digest(b"".join(path.read_bytes() for path in sorted(FOLDER.glob("*.yaml")))),
        policies=policies_digest(),
        prices=prices,
        price_source=version() if prices else None,
    )
    return facts if workflow.lineage is None else _with_lineage(workflow, root, facts)


def _pins(workflow: Workflow, root: Path, problems: dict[str, CasemateError]) -> dict[str, tuple[Pin, ...]]:
    try:
        return read_pins(root) if workflow.tools else {}
    except CasemateError as error:
        problems[PINS] = error
        return {}


def _anchors(workflow: Workflow, root: Path, problems: dict[str, CasemateError]) -> dict[str, dict[str, Distribution]]:
    asked = any(bound.sigma is not None for output in workflow.outputs.values() for bound in output.bounds.values())
    try:
        return read_anchors(root) if asked else {}
    except CasemateError as error:
        problems[ANCHORS] = error
        return {}


def _probes(workflow: Workflow, root: Path, files: dict[str, FileFact], problems: dict[str, CasemateError]) -> None:
    for path in sorted({path for output in workflow.outputs.values() for path in output.contamination}):
        try:
            data = read_inside(root, path, MAX_INPUT)
            if not any(tells(text) for _, text in read_probes(path, data)):
                message = f"{path} has no probe of {LEAST} letters and digits or more, so nothing could be told by it"
                problems[path] = CasemateError("CSM-C065", message)
            files[path] = FileFact(digest(data), len(data))
        except CasemateError as error:
            problems[path] = error
        except ValueError as error:
            problems[path] = CasemateError("CSM-C065", f"{path}: {error}")


def key_file(name: str) -> str:
    """Return where the public key of an approver lies."""
    return f"approvers/{name}.pub"


def _keys(workflow: Workflow, root: Path, problems: dict[str, CasemateError]) -> dict[str, str]:
    keys: dict[str, str] = {}
    for name in sorted(
        {name for output in workflow.outputs.values() if output.approvers for name in output.approvers.of}
    ):
        from sandbox.signatures import BadKeyError, public_key  # most workflows ask for no signature

        path = key_file(name)
        try:
            keys[name] = public_key(read_inside(root, path, MAX_SCHEMA)).hex()
        except CasemateError as error:
            problems[path] = error
        except BadKeyError as error:
            problems[path] = CasemateError("CSM-C047", f"{path}: {error}", hint=HOW_TO_MAKE_A_KEY)
    return keys


def _trust(
    workflow: Workflow, root: Path, files: dict[str, FileFact], problems: dict[str, CasemateError]
) -> dict[str, tuple[str, ...]]:
    trust: dict[str, tuple[str, ...]] = {}
    for path in workflow.trust:
        try:
            data = read_inside(root, path, MAX_SCHEMA)
            trust[path] = certificates(data, path)
            files[path] = FileFact(digest(data), len(data))
        except CasemateError as error:
            problems[path] = error
    return trust


def _prices(workflow: Workflow, today: date) -> dict[str, Listed]:
    """Look up what the workflow does not state. A local model's price is nobody's to list."""
    asked = {
        alias: listed(model.provider, model.model, model.base_url, today)
        for alias, model in sorted(workflow.models.items())
        if model.price is None and model.provider != "local"
    }
    return {alias: price for alias, price in asked.items() if price is not None}


def _with_lineage(workflow: Workflow, root: Path, facts: Facts) -> Facts:
    """Add what past runs say of the student's data, and how exposed that leaves it."""
    from sandbox.lineage.commands import exposure, verdict_of  # most workflows have no student
    from sandbox.lineage.facts import gather

    digests = {path: fact.digest for path, fact in facts.files.items()}
    found = gather(workflow, root, digests, lambda name: read_inside(root, name, MAX_SCHEMA))
    if found is None:
        return facts
    return replace(facts, lineage=found, exposure=exposure(verdict_of(workflow, digests, found)))


def _hidden(path: str, data: bytes) -> tuple[int, int, str] | None:
    """Return where the first character stands that a reader of a prompt would not see."""
    if PurePosixPath(path).suffix not in PROMPTS:
        return None
    for number, line in enumerate(data.decode(errors="replace").splitlines(), start=1):
        match = HIDDEN.search(line)
        if match:
            return number, match.start() + 1, f"U+{ord(match.group()):04X}"
    return None
