"""The exposure graph: from facts to edges. Pure.

1. The student is trained on what this workflow makes, on the data sets that it names, and on what recorded runs made
   for it.
2. A data set with a record comes from its job; a job from the models that answered and from its inputs.
3. A model comes from its roots, from the models that it was distilled from, and from what recorded runs made for it.
4. What has no record is unknown, or human where it is an ordinary input that no run ever wrote.

The student is a node apart from the registry's model of its name: what it was before is no exposure of this workflow's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from sandbox.lineage.registry import Evidence, ModelEntry, Registry
from sandbox.lineage.types import Case, Dataset, Edge, Node, NodeKind, Record, Relation, Use

PEOPLE = Node(NodeKind.HUMAN, "people", "people")
HERE = Node(NodeKind.JOB, "this workflow", "this workflow")
MADE = Node(NodeKind.DATASET, "its outputs", "its outputs")
MOVING = "the name moves from one snapshot to the next"
_DATA = (NodeKind.DATASET, NodeKind.JOB)


@dataclass(frozen=True, slots=True)
class Graph:
    """Edges by source, in the order in which they were found; and why a node is unknown, where it is."""

    student: Node
    edges: dict[Node, tuple[Edge, ...]]
    unknown: dict[Node, str]

    def reached(self) -> dict[Node, tuple[Edge, ...]]:
        """Return a shortest path from the student to every node that it is exposed to."""
        paths: dict[Node, tuple[Edge, ...]] = {self.student: ()}
        ahead = deque([self.student])
        while ahead:
            node = ahead.popleft()
            for edge in self.edges.get(node, ()):
                if edge.target not in paths:
                    paths[edge.target] = (*paths[node], edge)
                    ahead.append(edge.target)
        del paths[self.student]
        return paths

    def circle(self) -> tuple[Node, ...]:
        """Return data sets and jobs that derive from each other in a circle: by digest, only a forgery can."""
        try:
            TopologicalSorter(self._data()).prepare()
        except CycleError as error:
            return tuple(error.args[1])
        return ()

    def generation(self) -> int:
        """Return how many jobs in a row, in which models wrote or chose, lie between the student and human text."""
        if self.circle():
            return 0
        depth: dict[Node, int] = {}
        data = self._data()
        for node in TopologicalSorter(data).static_order():
            models = any(edge.target.kind is NodeKind.MODEL for edge in self.edges.get(node, ()))
            own = int(node.kind is NodeKind.JOB and models)
            depth[node] = own + max((depth[target] for target in data.get(node, ())), default=0)
        return depth.get(self.student, 0)

    def influences(self) -> Iterator[tuple[Node, Node]]:
        """Yield each pair of a model and another one whose outputs reach it with no third model between them."""
        for model in (self.student, *(node for node in self.edges if node.kind is NodeKind.MODEL)):
            start = [e.target for e in self.edges.get(model, ()) if e.relation is Relation.TRAINED_ON]
            seen, ahead = set(start), start
            while ahead:
                node = ahead.pop()
                if node.kind is NodeKind.MODEL:
                    yield model, node
                    continue
                fresh = {edge.target for edge in self.edges.get(node, ())} - seen
                seen |= fresh
                ahead.extend(fresh)

    def _data(self) -> dict[Node, list[Node]]:
        sources = [node for node in self.edges if node.kind in _DATA or node == self.student]
        return {node: [e.target for e in self.edges[node] if e.target.kind in _DATA] for node in sources}


def build(case: Case, entries: Registry, *, without: frozenset[str] = frozenset()) -> Graph:
    """Return what the student of `case` is exposed to; `without` the data sets of these digests."""
    return _Builder(case, entries, without).build()


def roots_of(entry: ModelEntry | None) -> frozenset[str]:
    """Return the roots that are known of a model, none where evidence is missing or the name moves."""
    if entry is None or entry.rolling or entry.evidence is Evidence.UNKNOWN:
        return frozenset()
    return frozenset(entry.init_roots)


class _Builder:
    """Walks from the student to everything that it comes from."""

    def __init__(self, case: Case, entries: Registry, without: frozenset[str]) -> None:
        self.case, self.entries, self.without = case, entries, without
        self.student = Node(NodeKind.MODEL, f"student {case.student.model}", f"student {case.student.model}")
        self.edges: dict[Node, dict[Edge, None]] = {}
        self.unknown: dict[Node, str] = {}
        self.ahead: deque[tuple[Node, Dataset | None, str | None]] = deque()
        self.made: dict[str, list[Record]] = {}
        self.taught: dict[str, list[Record]] = {}
        for record in case.records:
            for output in record.outputs:
                self.made.setdefault(output.digest or "", []).append(record)
            if record.student is not None:
                entry = entries.resolve(record.student)
                self.taught.setdefault(entry.id if entry else record.student, []).append(record)

    def build(self) -> Graph:
        case, seen = self.case, set[tuple[Node, Dataset | None, str | None]]()
        self.edge(self.student, Relation.TRAINED_ON, MADE)
        self.edge(MADE, Relation.DERIVED_FROM, HERE)
        self.job(HERE, case.uses, case.inputs, before=None)
        for item in case.datasets:
            self.dataset(self.student, Relation.TRAINED_ON, item, before=None, declared=True)
        entry = self.entries.resolve(case.student.model)
        self.lessons(self.student, entry.id if entry else case.student.model)
        while self.ahead:
            step = self.ahead.popleft()
            if step in seen:
                continue
            seen.add(step)
            node, found, before = step
            if found is None:
                self.model(node)
            else:
                self.provenance(node, found, before)
        return Graph(self.student, {node: tuple(edges) for node, edges in self.edges.items()}, self.unknown)

    def edge(self, source: Node, relation: Relation, target: Node) -> None:
        self.edges.setdefault(source, {})[Edge(source, relation, target)] = None

    def job(self, node: Node, uses: tuple[Use, ...], inputs: tuple[Dataset, ...], before: str | None) -> None:
        for use in uses:
            self.call(node, use.relation, use.model)
        for item in inputs:
            self.dataset(node, Relation.PROMPTS_FROM, item, before=before, declared=False)

    def call(self, source: Node, relation: Relation, name: str) -> None:
        entry = self.entries.resolve(name)
        node = Node(NodeKind.MODEL, entry.id if entry else name)
        self.edge(source, relation, node)
        self.ahead.append((node, None, None))

    def dataset(self, source: Node, relation: Relation, item: Dataset, *, before: str | None, declared: bool) -> None:
        if item.digest in self.without and source in (self.student, HERE):
            return  # an exception is for a data set as it is given to this student, not for what others made of it
        short = f"{item.path} ({item.digest[:19]}…)" if item.digest else item.path
        node = Node(NodeKind.DATASET, item.digest or f"unread {item.path}", short)
        self.edge(source, relation, node)
        if declared and item.digest and item.digest not in self.made:
            self.unknown[node] = "no recorded run wrote it"
        self.ahead.append((node, item, before))

    def provenance(self, node: Node, item: Dataset, before: str | None) -> None:
        """Rule 2 and rule 4 of the module for one data set, as it was `before` a run began."""
        if item.digest is None:
            self.unknown[node] = "it cannot be read"
            return
        for record in self.made.get(item.digest, ()):
            if record.problem is not None:
                self.unknown[node] = f"run {record.run} claims it, and its record does not verify: {record.problem}"
                continue
            job = Node(NodeKind.JOB, record.run, f"run {record.run}")
            self.edge(node, Relation.DERIVED_FROM, job)
            self.job(job, record.uses, record.inputs, before=record.run)
        if item.digest not in self.made:
            # a file that a run wrote and somebody changed has lost its record, not its teacher
            writers = [r for r in self.case.records if any(o.path == item.path for o in r.outputs)]
            earlier = [r.run for r in writers if before is None or r.run < before]
            if earlier:
                self.unknown.setdefault(node, f"run {max(earlier)} wrote this path, and not these bytes")
            elif node not in self.unknown:
                self.edge(node, Relation.DERIVED_FROM, PEOPLE)

    def model(self, node: Node) -> None:
        """Rule 3 of the module for one model."""
        self.lessons(node, node.key)
        entry = self.entries.resolve(node.key)
        if entry is None:
            self.unknown[node] = "the registry does not know it"
        elif entry.rolling:
            self.unknown[node] = MOVING
        elif entry.evidence is Evidence.UNKNOWN or not entry.init_roots:
            self.unknown[node] = "the registry has no evidence of its origin"
        for root in entry.init_roots if entry else ():
            if root != node.key and root in self.entries:
                self.call(node, Relation.INIT_FROM, root)
        for teacher in entry.distilled_from if entry else ():
            outputs = Node(NodeKind.DATASET, f"outputs of {teacher}")
            self.edge(node, Relation.TRAINED_ON, outputs)
            self.call(outputs, Relation.GENERATED_BY, teacher)

    def lessons(self, node: Node, model: str) -> None:
        for record in self.taught.get(model, ()):
            for output in record.outputs:
                if output.digest is not None:
                    self.dataset(node, Relation.TRAINED_ON, output, before=None, declared=False)
