"""What may be written: the outputs of a plan, their bounds, and the history that some bounds are measured from."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from policies.base import Count, Digest, Frozen, Name

Scan = Literal["links", "pii", "unicode"]
Number = int | float


class Distribution(Frozen, frozen=True, kw_only=True):
    """The values of a field: their number, mean, standard deviation, 101 centiles, and the share of rows without.

    Of a text they are its length in characters. Of a field with few values there are only the `shares` of each.
    """

    n: Count
    mean: Number
    sd: Number
    nulls: Number
    centiles: list[Number]
    shares: dict[str, Number] = msgspec.field(default_factory=dict)


class Candidate(Frozen, frozen=True, kw_only=True):
    """What applied writes have been like since the anchor: see `policies.history`. `waiting`: the last set, not yet
    taken in; `up`, `down`: how far sets have been off, in sum."""

    n: Count
    mean: Number
    sd: Number
    centiles: list[Number]
    shares: dict[str, Number] = msgspec.field(default_factory=dict)
    waiting: Distribution | None = None
    up: Number = 0
    down: Number = 0


class Bound(Frozen, frozen=True, kw_only=True):
    """Smallest and largest allowed value of a number, or length of a text; or within `sigma` of the history of an
    output, whose `anchor` is the state that a person has committed."""

    min: Number | None
    max: Number | None
    sigma: Number | None = None
    history: Name | None = None
    anchor: Distribution | None = None


class Approvers(Frozen, frozen=True, kw_only=True):
    """Who may approve: `need` of the owners of `keys`, which are Ed25519 public keys in hex, by name."""

    need: Count
    keys: dict[Name, Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]]


class PullRequest(Frozen, frozen=True, kw_only=True):
    """How a branch is proposed: at the REST API `api` of a forge, for its `project`."""

    forge: Literal["github", "gitlab", "gitea", "pagure"]
    api: str
    project: str
    labels: list[str]
    draft: bool


class Repository(Frozen, frozen=True, kw_only=True):
    """What a patch may change, and how it is offered: each as one commit of `author`, on a branch of its own, whose
    name begins with `prefix`, on top of `base`.

    `files`, `lines` (that are added) and `bytes` are the most of one patch. `paths`: globs, one of which every path
    must match, unless there are none. `protected`: what becomes of a patch that changes what `policies.protected`
    names, but for what the globs `unprotected` match. `executable`: files may be made executable.
    """

    base: str
    prefix: str
    author: str
    email: str
    user: str
    files: Count
    lines: Count
    bytes: Count
    paths: list[str]
    protected: Literal["reject", "hold"]
    unprotected: list[str]
    executable: bool
    pull_request: PullRequest | None


class ProbeFile(Frozen, frozen=True, kw_only=True):
    """A file of texts that no row may hold: see `policies.probes`."""

    path: str
    digest: Digest


class Output(Frozen, frozen=True, kw_only=True):
    """A declared kind of write.

    `path` and `format` are those of a data set, empty for other sinks, whose settings are in `target`. `addresses`:
    see `EgressRule`. Quotas count rows. `approve_over`: hold the batch when it has more rows than that. `approvers`:
    whose signatures an approval takes; without them, the word of whoever may call `casemate`. `hosts`: where links
    may lead. `findings`: what becomes of a row that a scan objects to, by scan, where it is not rejected. `git`:
    of that sink alone.
    """

    name: Name
    sink: Literal["dataset", "git", "sql", "mlflow", "http", "mcp", "file"]
    path: str
    format: Literal["jsonl", "parquet", ""]
    target: dict[str, str] = msgspec.field(default_factory=dict)
    secret: Name | None = None
    addresses: list[str] = msgspec.field(default_factory=list)
    schema: dict[str, Any]
    bounds: dict[str, Bound]
    unique: list[str]
    scan: list[Literal["links", "pii", "secrets", "unicode"]]
    per_run: Count
    per_day: Count | None = None
    per_minute: Count | None = None
    max_bytes: Count
    atomic: Literal["batch", "each"]
    approval: Literal["never", "always", "on_hold"] = "never"
    approve_over: Count | None = None
    approvers: Approvers | None = None
    probes: list[ProbeFile] = msgspec.field(default_factory=list)
    hosts: list[str] = msgspec.field(default_factory=list)
    findings: dict[Scan, Literal["hold", "redact"]] = msgspec.field(default_factory=dict)
    git: Repository | None = None
