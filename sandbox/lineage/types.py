"""The words of lineage: the lattice, the graph's nodes and edges, and the facts that it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

from policies.errors import CasemateError


class Kinship(IntEnum):
    """How a student stands to what it learns from. Of several exposures the greatest counts; nothing lowers it."""

    HUMAN = 0
    CROSS = 1
    SAME_INIT = 2
    UNKNOWN = 3

    @property
    def refused(self) -> bool:
        """Tell whether the gate stays shut."""
        return self >= Kinship.SAME_INIT


class NodeKind(StrEnum):
    """What stands in the graph."""

    MODEL = "model"
    DATASET = "dataset"
    JOB = "job"
    HUMAN = "human"


class Relation(StrEnum):
    """What leads from one node to where it comes from. A judge is an exposure too: it selects."""

    INIT_FROM = "init_from"
    TRAINED_ON = "trained_on"
    GENERATED_BY = "generated_by"
    PROMPTS_FROM = "prompts_from"
    JUDGED_BY = "judged_by"
    DERIVED_FROM = "derived_from"


@dataclass(frozen=True, slots=True)
class Node:
    """A model (by id), a data set (by digest), a job (by run), or people. The label is for readers only."""

    kind: NodeKind
    key: str
    label: str = field(default="", compare=False)

    def __str__(self) -> str:
        return self.label or self.key


@dataclass(frozen=True, slots=True)
class Edge:
    """`source` comes, in this way, from `target`."""

    source: Node
    relation: Relation
    target: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Student:
    """The model that will be trained, and what the workflow says of its initial checkpoint."""

    model: str
    init_root: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """A model that a job called, by the name under which it answered; `tokens` are what it wrote."""

    model: str
    relation: Relation = Relation.GENERATED_BY
    tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A file by its content. Without a digest it could not be read."""

    path: str
    digest: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What a past run's log says. With a `problem` the log does not verify, and what it says is only a claim."""

    run: str
    plan: str
    problem: str | None = None
    student: str | None = None
    uses: tuple[Use, ...] = ()
    inputs: tuple[Dataset, ...] = ()
    outputs: tuple[Dataset, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Everything that the gate judges: the workflow's part and the records of past runs."""

    student: Student
    uses: tuple[Use, ...]
    inputs: tuple[Dataset, ...]
    datasets: tuple[Dataset, ...] = ()
    records: tuple[Record, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageFacts:
    """What the disk says besides files' digests: records, exceptions by path, and approvers' keys by name."""

    records: tuple[Record, ...] = ()
    exceptions: Mapping[str, bytes | CasemateError] = field(default_factory=dict)
    approvers: Mapping[str, bytes] = field(default_factory=dict)
