"""Workflow: from marked data to a typed value, or findings with line and column."""

from __future__ import annotations

from decimal import Decimal

import jsonschema_rs
import msgspec

from sandbox.language.findings import Finding, FindingsError
from sandbox.language.misfits import misfits, schema
from sandbox.language.sinks import SinkSpec, api_of
from sandbox.language.source import Document

_UNITS = {"s": 1, "m": 60, "h": 3600, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


class _Typed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the workflow types. Fields are named as users write them."""


class DaySpec(_Typed, frozen=True, kw_only=True):
    """`per_day:`"""

    usd: float | None = None
    tokens: int | None = None
    calls: int | None = None


class BudgetSpec(_Typed, frozen=True, kw_only=True):
    """`budget:`"""

    usd: float
    tokens: int
    calls: int
    wall: str
    per_day: DaySpec | None = None


class SecretSpec(_Typed, frozen=True, kw_only=True, rename={"origin": "from"}):
    """One of `secrets:`"""

    origin: str
    key: str


class PriceSpec(_Typed, frozen=True, kw_only=True):
    """`price:` in USD per million tokens."""

    input: float
    output: float
    cache_read: float | None = None
    cache_write: float | None = None


class RouteSpec(_Typed, frozen=True, kw_only=True):
    """One of `route:`"""

    below: int
    use: str


class ModelSpec(_Typed, frozen=True, kw_only=True):
    """One of `models:`"""

    provider: str
    model: str
    secret: str | None = None
    base_url: str | None = None
    max_output_tokens: int | None = None
    price: PriceSpec | None = None
    fallback: list[str] = []
    route: dict[str, RouteSpec] = {}
    addresses: list[str] = []


class InputSpec(_Typed, frozen=True, kw_only=True):
    """One of `inputs:`"""

    path: str


class CredentialSpec(_Typed, frozen=True, kw_only=True):
    """`credential:` of an egress rule."""

    header: str
    secret: str
    scheme: str = ""


class EgressQuotaSpec(_Typed, frozen=True, kw_only=True):
    """`quota:` of an egress rule."""

    requests: int | None = None
    bytes: str | None = None


class EgressSpec(_Typed, frozen=True, kw_only=True):
    """One of `egress:`; either a host or an ecosystem."""

    host: str = ""
    ecosystem: str | None = None
    port: int | None = None
    scheme: str = "https"
    inspect: bool = False
    methods: list[str] = []
    paths: list[str] = []
    credential: CredentialSpec | None = None
    quota: EgressQuotaSpec | None = None
    addresses: list[str] = []


class OauthSpec(_Typed, frozen=True, kw_only=True):
    """`oauth:` of a tool."""

    token_url: str
    client_id: str
    scopes: list[str] = []


class ToolSpec(_Typed, frozen=True, kw_only=True):
    """One of `tools:`"""

    image: str | None = None
    url: str | None = None
    transport: str | None = None
    secret: str | None = None
    secret_env: str | None = None
    header: str | None = None
    oauth: OauthSpec | None = None
    egress: list[EgressSpec] = []
    run: list[str] = []
    addresses: list[str] = []


class ShardsSpec(_Typed, frozen=True, kw_only=True):
    """`shards:`"""

    over: str
    size: int
    parallel: int = 1


class RetrySpec(_Typed, frozen=True, kw_only=True):
    """`retry:`"""

    attempts: int
    on: list[str] = msgspec.field(default_factory=lambda: ["failed", "timed_out"])


class StudentSpec(_Typed, frozen=True, kw_only=True):
    """`student:`"""

    model: str
    init_root: str | None = None


class LineageSpec(_Typed, frozen=True, kw_only=True):
    """`lineage:`"""

    student: StudentSpec
    policy: str = "no-same-init"
    datasets: list[str] = []
    exceptions: list[str] = []


class ImportSpec(_Typed, frozen=True, kw_only=True, rename={"arguments": "with"}):
    """One of `imports:`"""

    path: str
    digest: str
    arguments: dict[str, str | int | bool] = {}


class SuppressSpec(_Typed, frozen=True, kw_only=True):
    """One of `suppress:`; `until` is a date, YYYY-MM-DD."""

    rule: str
    at: str
    reason: str
    until: str


class OverSpec(_Typed, frozen=True, kw_only=True):
    """`approval: {over: …}`"""

    over: int


class ApproversSpec(_Typed, frozen=True, kw_only=True):
    """`approvers:`; each of `of` has a key in `approvers/` beside the workflow."""

    need: int
    of: list[str]


class RateSpec(_Typed, frozen=True, kw_only=True):
    """`rate:`; `requests` and `tokens` read `60/min`."""

    requests: str | None = None
    tokens: str | None = None
    parallel: int | None = None


class CallSpec(_Typed, frozen=True, kw_only=True):
    """`call:`, what one LLM call may come to."""

    usd: float | None = None
    tokens: int | None = None


class LimitsSpec(_Typed, frozen=True, kw_only=True):
    """`limits:`; what is not stated has a default."""

    cpu: float = 1
    memory: str = "512MiB"
    pids: int = 128
    disk: str = "256MiB"
    wall: str = "10m"
    calls: int | None = None
    tokens: int | None = None
    usd: float | None = None
    rate: RateSpec | None = None
    call: CallSpec | None = None


class GuardSpec(_Typed, frozen=True, kw_only=True):
    """What one argument may be, in `guard:` of a tool."""

    below: str | None = None
    no_dash: bool = False
    hosts: list[str] = []


class ToolUseSpec(_Typed, frozen=True, kw_only=True):
    """One of a stage's `tools`: a tool by its `name`, or a `resource`, or a `prompt` of the same server."""

    name: str = ""
    resource: str = ""
    prompt: str = ""
    calls: int | None = None
    guard: dict[str, GuardSpec] = {}


class StageSpec(_Typed, frozen=True, kw_only=True):
    """One of `stages:`"""

    name: str
    image: str
    run: list[str]
    env: dict[str, str] = {}
    needs: list[str] = []
    inputs: list[str] | None = None
    models: list[str] = []
    egress: list[EgressSpec] = []
    tools: dict[str, list[str | ToolUseSpec]] = {}
    outputs: list[str] = []
    limits: LimitsSpec = LimitsSpec()
    profile: str = "default"
    shards: ShardsSpec | None = None
    retry: RetrySpec | None = None
    cache: str = "none"
    locks: list[str] = []


class BoundSpec(_Typed, frozen=True, kw_only=True):
    """One of `bounds:`"""

    min: int | float | None = None
    max: int | float | None = None
    sigma: int | float | None = None
    history: str | None = None


class QuotaSpec(_Typed, frozen=True, kw_only=True):
    """`quota:`"""

    per_run: int
    per_day: int | None = None
    per_minute: int | None = None
    bytes: str = "256MiB"


class OutputSpec(_Typed, frozen=True, kw_only=True):
    """One of `outputs:`"""

    sink: SinkSpec
    schema: str
    quota: QuotaSpec
    bounds: dict[str, BoundSpec] = {}
    scan: list[str] = msgspec.field(default_factory=lambda: ["secrets"])
    findings: dict[str, str] = {}
    hosts: list[str] = []
    unique: list[str] = []
    approval: str | OverSpec = "never"
    approvers: ApproversSpec | None = None
    contamination: list[str] = []
    atomic: str = "each"


class Workflow(_Typed, frozen=True, kw_only=True):
    """What the user wrote, typed, with defaults filled in."""

    casemate: int
    name: str
    budget: BudgetSpec
    stages: list[StageSpec]
    task: str = "one"
    secrets: dict[str, SecretSpec] = {}
    models: dict[str, ModelSpec] = {}
    inputs: dict[str, InputSpec] = {}
    outputs: dict[str, OutputSpec] = {}
    tools: dict[str, ToolSpec] = {}
    lineage: LineageSpec | None = None
    imports: list[ImportSpec] = []
    suppress: list[SuppressSpec] = []
    trust: list[str] = []


def read(document: Document) -> Workflow:
    """Return the typed workflow. Raises `FindingsError` with every violation of the schema."""
    # The fast validator says whether; the other one, which takes longer to load than to run, says where and why.
    if not jsonschema_rs.Draft202012Validator(schema()).is_valid(document.data):
        findings = sorted(misfits(document), key=lambda f: (f.place.line, f.place.column, f.code))
        message = "the workflow does not fit its schema"
        raise FindingsError(findings or [Finding(code="CSM-C007", message=message, place=document.place(()), path=())])
    return msgspec.convert(document.data, Workflow, strict=False)


def tool_use(entry: str | ToolUseSpec) -> ToolUseSpec:
    """Return an entry of a stage's `tools` in its long form."""
    return ToolUseSpec(name=entry) if isinstance(entry, str) else entry


def detours(workflow: Workflow, alias: str) -> set[str]:
    """Return what a call of `alias` may come to: itself, and over however many routes and fallbacks."""
    found: set[str] = set()
    ahead = [alias]
    while ahead:
        name = ahead.pop()
        model = workflow.models.get(name)
        if model is not None and name not in found:
            found.add(name)
            ahead += [*model.fallback, *(route.use for route in model.route.values())]
    return found


def tool_destination(name: str, tool: ToolSpec) -> str:
    """Return where a server's secret goes: to its container, to its URL, or to where it is exchanged for a token."""
    return (tool.oauth.token_url if tool.oauth else tool.url) or name


def sink_destination(output: OutputSpec) -> str:
    """Return where a sink's secret goes; a forge is its repository and its API."""
    sink = output.sink
    places = [sink.url or sink.repository or sink.server or sink.path]
    if sink.pull_request is not None:
        places.append(api_of(sink.repository or "", sink.pull_request))
    return " and ".join(places)


def quantity(text: str) -> int:
    """Return seconds of a duration (`20m`) or bytes of a size (`512MiB`)."""
    digits = "".join(c for c in text if c.isdigit())
    return int(digits) * _UNITS[text[len(digits) :]]


def per_minute(text: str | None) -> int | None:
    """Return the number of a rate (`60/min`)."""
    return None if text is None else int(text.removesuffix("/min"))


def nanos(usd: float) -> int:
    """Return nano-USD, rounded to the nearest."""
    return round(Decimal(str(usd)) * 1_000_000_000)
