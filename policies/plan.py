"""The plan: immutable, complete, without a secret and without a choice left for run time.

All quantities are integers: bytes, seconds, tokens, and money in nano-USD (10⁻⁹ USD), so that sums are exact and
the encoding is canonical. Every list is sorted by the compiler, so that the same workflow gives the same bytes.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import msgspec

from policies.base import Count as Count
from policies.base import Digest as Digest
from policies.base import Frozen as Frozen
from policies.base import Name as Name
from policies.base import Port as Port
from policies.canonical import canonical, digest, strict_loads
from policies.cells import cells_of
from policies.errors import CasemateError
from policies.outputs import Approvers as Approvers
from policies.outputs import Bound as Bound
from policies.outputs import Candidate as Candidate
from policies.outputs import Distribution as Distribution
from policies.outputs import Output as Output
from policies.outputs import ProbeFile as ProbeFile
from policies.outputs import PullRequest as PullRequest
from policies.outputs import Repository as Repository

PLAN_VERSION = 1


class DayBudget(Frozen, frozen=True, kw_only=True):
    """Ceilings of all runs of a workflow on one host that start on one day (UTC); null: none."""

    usd_nanos: Count | None = None
    tokens: Count | None = None
    calls: Count | None = None


class Budget(Frozen, frozen=True, kw_only=True):
    """Ceilings. `usd_nanos`: nano-USD; `wall_s`: seconds. What would pass a ceiling is refused before it happens."""

    usd_nanos: Count
    tokens: Count
    calls: Count
    wall_s: Count
    per_day: DayBudget | None = None


class Source(Frozen, frozen=True, kw_only=True):
    """Where the plan comes from, by digest: the workflow, every file that it names, the model registry, and the
    policies that hold for every run (rules for secrets, the seccomp profile). `prices`: the package and version that
    prices were taken from, where the workflow states none."""

    workflow: str
    digest: Digest
    files: dict[str, Digest]
    registry: Digest | None = None
    policies: Digest | None = None
    prices: str | None = None


class SecretBinding(Frozen, frozen=True, kw_only=True):
    """A secret's name, where the host finds its value, the one component that gets it, and where that may send it."""

    name: Name
    origin: Literal["env", "file", "command"]
    key: str
    holder: Literal["firewall", "llm", "gateway", "customs"]
    destination: str


class Price(Frozen, frozen=True, kw_only=True):
    """Nano-USD a token, at the dearest rate that a call may come to.

    Input that was read from the provider's cache costs `cache_read` (null: as any input), what was written to it
    `cache_write` (null: a quarter more than input), or, where it is kept for an hour, `cache_write_1h` (null: twice).
    """

    input: Count
    output: Count
    cache_read: Count | None = None
    cache_write: Count | None = None
    cache_write_1h: Count | None = None


class Route(Frozen, frozen=True, kw_only=True):
    """Use another alias for small calls (`below` input tokens) or for the first ones (`below` calls of a stage)."""

    kind: Literal["small", "early"]
    below: Count
    use: Name


class Model(Frozen, frozen=True, kw_only=True):
    """An alias that stages use, and what it leads to.

    `local` names a trusted model image that is served on a socket without any network; otherwise `host`, `port` and
    `base_path` name a provider that is reached over TLS. `addresses`: see `EgressRule`.
    `names` are those that the registry has for the model beside `model`: it may answer under any of them.
    """

    alias: Name
    provider: str
    model: str
    host: str
    port: Port
    base_path: str
    local: str | None
    secret: Name | None
    price: Price
    max_output_tokens: Count
    addresses: list[str] = msgspec.field(default_factory=list)
    names: list[str] = msgspec.field(default_factory=list)
    fallback: list[Name] = msgspec.field(default_factory=list)
    routes: list[Route] = msgspec.field(default_factory=list)


class HeaderCredential(Frozen, frozen=True, kw_only=True):
    """A secret that the firewall puts into a header of each request: `<scheme> <value>`, or the value alone.

    `header` is lower case; `scheme` is empty or one token.
    """

    header: str
    secret: Name
    scheme: str


class EgressQuota(Frozen, frozen=True, kw_only=True):
    """What one stage may move by one rule: `requests` (for an opaque tunnel: tunnels), and `bytes` of both ways."""

    requests: Count | None
    bytes: Count | None


class EgressRule(Frozen, frozen=True, kw_only=True):
    """An allowed destination: `host` is exact, or `*.` and a suffix (one label).

    `place` is the rule's place in the workflow.
    `scheme` is `https`, `http` (plain) or `tcp`. An `https` rule is an opaque tunnel whose ClientHello must name the
    host; with `inspect`, the firewall ends the TLS, and judges each request. A `tcp` rule, which only an MCP server can
    have, is a loopback port of its cell, of the same number, that leads to this host; nothing said there is looked at.
    `methods` and `paths` (prefixes that end where a segment ends) limit what can be seen: plain and inspected requests;
    empty means any.
    `addresses` are private networks (CIDR) that this host may resolve to, beside public addresses.
    """

    host: str
    port: Port
    scheme: Literal["https", "http", "tcp"]
    inspect: bool
    methods: list[str]
    paths: list[str]
    place: str
    addresses: list[str] = msgspec.field(default_factory=list)
    credential: HeaderCredential | None = None
    quota: EgressQuota | None


class Pin(Frozen, frozen=True, kw_only=True):
    """A tool as a person approved it: the whole definition that its server gave, and whether it only reads."""

    name: str
    reads: bool
    definition: dict[str, Any]


class ClientCredentials(Frozen, frozen=True, kw_only=True):
    """Where a server's secret is exchanged for a token (OAuth 2, client credentials), and for what."""

    token_url: str
    client_id: str
    scopes: list[str]


class Tool(Frozen, frozen=True, kw_only=True):
    """An MCP server: a container (`image` with `run`, over stdio) or a remote one (`url`, over HTTP).

    `egress` is where a container may connect; `addresses` (CIDR) where a remote server may be, beside public addresses.
    A container finds its `secret` at /run/secrets/<secret>, and with `secret_env` in that environment variable too.
    To a remote server, the `secret` is a bearer token, or the value of `header` (lower case), or what `oauth` wants.
    """

    name: Name
    image: str | None
    url: str | None
    secret: Name | None
    secret_env: str | None = None
    header: str | None = None
    oauth: ClientCredentials | None = None
    egress: list[EgressRule]
    run: list[str] = msgspec.field(default_factory=list)
    addresses: list[str] = msgspec.field(default_factory=list)
    pins: list[Pin] = msgspec.field(default_factory=list)


class Image(Frozen, frozen=True, kw_only=True):
    """A container image: the name that the workflow uses and the digest (image id) that will be run."""

    name: str
    digest: Digest


class Input(Frozen, frozen=True, kw_only=True):
    """A file that stages may read under /inputs/<target>. `size` in bytes."""

    name: Name
    path: str
    target: str
    digest: Digest
    size: Count


class Rate(Frozen, frozen=True, kw_only=True):
    """How much of the LLM door a stage may use: `requests` and `tokens` in any minute, `parallel` calls at once.

    Null: no limit of its own beside the ceilings.
    """

    requests: Count | None = None
    tokens: Count | None = None
    parallel: Count | None = None


class CallLimit(Frozen, frozen=True, kw_only=True):
    """What one LLM call may come to at most; null: whatever is left of the stage's."""

    usd_nanos: Count | None = None
    tokens: Count | None = None


class Limits(Frozen, frozen=True, kw_only=True):
    """Bounds of one cell. `cpu_millis`: thousandths of a core; `memory`, `disk`: bytes; `wall_s`: seconds."""

    cpu_millis: Count
    memory: Count
    pids: Count
    disk: Count
    wall_s: Count
    calls: Count
    tokens: Count
    usd_nanos: Count
    rate: Rate | None = None
    call: CallLimit | None = None


class Shards(Frozen, frozen=True, kw_only=True):
    """Run the stage once for each `size` items of an input, `parallel` at a time: `count` times in all."""

    over: Name
    size: Count
    parallel: Count
    count: Count


class Retry(Frozen, frozen=True, kw_only=True):
    """Run the stage again, `attempts` times in all, when it ends in one of the outcomes."""

    attempts: Count
    on: list[Literal["failed", "timed_out", "incomplete"]]


class Guard(Frozen, frozen=True, kw_only=True):
    """What one argument of a tool may be, where it is given: each text in it lies `below` a path, does not begin with a
    dash (`no_dash`), and names one of `hosts` (patterns as in `EgressRule`; a name, or a URL at its default port)."""

    argument: str
    below: str | None = None
    no_dash: bool = False
    hosts: list[str] = msgspec.field(default_factory=list)


class ToolRule(Frozen, frozen=True, kw_only=True):
    """How a stage may use one of its tools, beyond that it may: `calls` at most (null: the gateway's own limit)."""

    server: Name
    tool: str
    calls: Count | None = None
    guards: list[Guard] = msgspec.field(default_factory=list)


class Stage(Frozen, frozen=True, kw_only=True):
    """One container run with fixed permissions. `tools`: names of read tools by server, which `tool_rules` narrow;
    `resources` (URIs, or what they begin with and `*`) and `prompts` are of the same servers. `cache`: of LLM answers.
    In `shards`, each has a cell of its own; of `limits`, calls, tokens and money are of all together.
    """

    name: Name
    image: str
    run: list[str]
    env: dict[str, str]
    needs: list[Name]
    inputs: list[Name]
    models: list[Name]
    tools: dict[str, list[str]] = msgspec.field(default_factory=dict)
    tool_rules: list[ToolRule] = msgspec.field(default_factory=list)
    resources: dict[str, list[str]] = msgspec.field(default_factory=dict)
    prompts: dict[str, list[str]] = msgspec.field(default_factory=dict)
    egress: list[EgressRule]
    outputs: list[Name]
    limits: Limits
    profile: Literal["default", "explore", "ci-fork"] = "default"
    shards: Shards | None = None
    retry: Retry | None = None
    cache: Literal["none", "exact"] = "none"
    locks: list[str] = msgspec.field(default_factory=list)

    @property
    def cells(self) -> list[str]:
        """The names of its cells, in order: one, or one for each shard."""
        return cells_of(self.name, self.shards.count if self.shards is not None else None)


class Student(Frozen, frozen=True, kw_only=True):
    """The model that will be trained on the outputs, and the rule for its teachers."""

    model: str
    init_root: str | None
    policy: Literal["no-same-init"]
    verdict: Literal["human", "cross", "same_init", "unknown"]
    exceptions: list[Digest]


class Plan(Frozen, frozen=True, kw_only=True):
    """What will be run. See the module docstring for units.

    `trust`: certificates (PEM, one each) of authorities that are trusted beside the system's own.
    """

    casemate: Literal[1]
    name: Name
    task: Literal["one"]
    source: Source
    budget: Budget
    secrets: list[SecretBinding]
    models: list[Model]
    images: list[Image]
    tools: list[Tool] = msgspec.field(default_factory=list)
    inputs: list[Input]
    stages: list[Stage]
    outputs: list[Output]
    student: Student | None = None
    trust: list[str] = msgspec.field(default_factory=list)


T = TypeVar("T")


def encode(value: msgspec.Struct) -> bytes:
    """Return the canonical bytes of a plan or of a part of it."""
    return canonical(msgspec.to_builtins(value))


def decode(data: bytes, kind: type[T], *, code: str = "CSM-C041", place: str | None = None) -> T:
    """Read canonical bytes back; refuse what is not the canonical encoding of a `kind`.

    Raises `CasemateError(code)` on an unknown field, a missing field, a wrong type, a duplicate key, or any byte
    that the canonical encoding would not have.
    """
    try:
        value = msgspec.convert(strict_loads(data), kind, strict=True)
    except (ValueError, msgspec.ValidationError) as error:
        raise CasemateError(code, f"not a {kind.__name__}: {error}", place=place) from error
    if canonical(msgspec.to_builtins(value)) != data:
        raise CasemateError(code, f"not the canonical encoding of a {kind.__name__}", place=place)
    return value


def body_digest(plan: Plan) -> str:
    """Return the digest of the plan document itself."""
    return digest(encode(plan))
