"""The gate: from a case to a verdict with its path. Pure.

The verdict is the greatest over every exposure, direct or through other models' data. An exception does not lower it:
it takes one data set out of what the gate looks at, and the verdict is reported as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

from sandbox.language.findings import did_you_mean
from sandbox.lineage.graph import MOVING, Graph, build, roots_of
from sandbox.lineage.registry import CLOSED, Registry
from sandbox.lineage.types import Case, Edge, Kinship, Node, NodeKind, Student


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """One thing that the student is exposed to, how it stands to it, and the shortest way there."""

    node: Node
    kinship: Kinship
    reason: str
    path: tuple[Edge, ...]

    def code(self) -> str:
        """Return the error code under which this exposure is refused."""
        if self.kinship is Kinship.SAME_INIT:
            return "CSM-L001"
        return "CSM-L004" if self.reason == MOVING else "CSM-L002"


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentProblem:
    """Why nothing can be said about a student."""

    code: str
    message: str
    hint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageVerdict:
    """The greatest kinship, the shortest path to it, and everything that it was taken from.

    `generation`: how many model-made data sets in a row lie between the student and human text. `flywheels`: groups of
    roots that learn from each other. `forged`: records that derive from each other in a circle.
    """

    verdict: Kinship
    path: tuple[Edge, ...]
    reasons: tuple[str, ...]
    generation: int
    exposures: tuple[Exposure, ...]
    flywheels: tuple[frozenset[str], ...]
    forged: tuple[Node, ...]
    problem: StudentProblem | None
    graph: Graph

    def refusals(self) -> tuple[Exposure, ...]:
        """Return the refused exposures that stand for themselves, not behind another one that is refused."""
        bad = {exposure.node for exposure in self.exposures if exposure.kinship.refused}
        return tuple(
            exposure
            for exposure in self.exposures
            if exposure.kinship.refused and not any(edge.target in bad for edge in exposure.path[:-1])
        )


def judge(case: Case, entries: Registry, *, without: frozenset[str] = frozenset()) -> LineageVerdict:
    """Return how the student stands to all that it is exposed to; `without` the data sets of these digests."""
    graph = build(case, entries, without=without)
    roots, problem = student_roots(case.student, entries)
    exposures = tuple(_exposure(graph, node, path, roots, entries) for node, path in graph.reached().items())
    exposures = tuple(sorted(exposures, key=lambda e: (-e.kinship, len(e.path))))
    forged = graph.circle()
    worst = exposures[0] if exposures and exposures[0].kinship > Kinship.HUMAN else None
    unknown = problem is not None or bool(forged)
    reasons = [problem.message] if problem else []
    if forged:
        reasons.append(f"data sets derive from each other in a circle: {' ← '.join(map(str, forged))}")
    verdict = Kinship.UNKNOWN if unknown else worst.kinship if worst else Kinship.HUMAN
    reasons += [f"{e.node}: {e.reason}" for e in exposures if e.kinship is verdict and e.reason]
    return LineageVerdict(
        verdict=verdict,
        path=worst.path if worst else (),
        reasons=tuple(reasons),
        generation=graph.generation(),
        exposures=exposures,
        flywheels=_flywheels(graph, roots, entries),
        forged=forged,
        problem=problem,
        graph=graph,
    )


def student_roots(student: Student, entries: Registry) -> tuple[frozenset[str], StudentProblem | None]:
    """Return the student's roots, or why they are not known.

    The registry holds. Where it does not know the student, the workflow may name a root, but only one that the registry
    knows: a slip in its name would otherwise make every teacher a stranger.
    """
    entry = entries.resolve(student.model)
    claimed = _known_root(student.init_root, entries) if student.init_root else frozenset()
    if student.init_root and not claimed:
        message = f'init_root "{student.init_root}" is no root that the registry knows'
        hint = did_you_mean(student.init_root, {root for e in entries.values() for root in e.init_roots})
        return frozenset(), StudentProblem(code="CSM-L003", message=message, hint=hint)
    if entry is None and claimed:
        return claimed, None
    if entry is None:
        message = f'student "{student.model}" is not in the registry'
        hint = did_you_mean(student.model, entries)
        return frozenset(), StudentProblem(code="CSM-L003", message=message, hint=hint)
    if entry.rolling:
        message = f'student "{student.model}" is a name that moves'
        return frozenset(), StudentProblem(code="CSM-L004", message=message, hint="name a dated snapshot")
    roots = roots_of(entry)
    if not roots:
        message = f'the registry has no evidence of where "{student.model}" comes from'
        return frozenset(), StudentProblem(code="CSM-L003", message=message)
    if claimed and claimed != roots:
        message = f'the workflow says that "{student.model}" starts from {student.init_root}'
        hint = f"the registry says {', '.join(sorted(roots))}"
        return frozenset(), StudentProblem(code="CSM-L006", message=message, hint=hint)
    return roots, None


def tell(path: tuple[Edge, ...]) -> str:
    """Return a path as one line."""
    return "".join([str(path[0].source), *(f" —{e.relation.value}→ {e.target}" for e in path)]) if path else ""


def _known_root(name: str, entries: Registry) -> frozenset[str]:
    if name.endswith(CLOSED):
        return frozenset(root for entry in entries.values() for root in entry.init_roots if root == name)
    return roots_of(entries.resolve(name))


def _exposure(graph: Graph, node: Node, path: tuple[Edge, ...], roots: frozenset[str], entries: Registry) -> Exposure:
    if node in graph.unknown:
        return Exposure(node=node, kinship=Kinship.UNKNOWN, reason=graph.unknown[node], path=path)
    if node.kind is not NodeKind.MODEL:
        return Exposure(node=node, kinship=Kinship.HUMAN, reason="", path=path)
    theirs = roots_of(entries.resolve(node.key))
    shared = theirs & roots
    if shared:
        reason = f"shares the initial checkpoint {', '.join(sorted(shared))} with the student"
        return Exposure(node=node, kinship=Kinship.SAME_INIT, reason=reason, path=path)
    reason = f"starts from {', '.join(sorted(theirs))}"
    return Exposure(node=node, kinship=Kinship.CROSS, reason=reason, path=path)


def _flywheels(graph: Graph, roots: frozenset[str], entries: Registry) -> tuple[frozenset[str], ...]:
    """Contract the graph by root; return its self edges and its larger components."""
    ahead: dict[str, set[str]] = {}
    for learner, teacher in graph.influences():
        mine = roots if learner == graph.student else roots_of(entries.resolve(learner.key))
        for root in mine:
            ahead.setdefault(root, set()).update(roots_of(entries.resolve(teacher.key)))
    reach = {root: _closure(root, ahead) for root in ahead}
    groups = {frozenset(other for other in reach[root] if root in reach.get(other, ())) for root in reach}
    return tuple(sorted((group for group in groups if group), key=sorted))


def _closure(root: str, ahead: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    left = list(ahead.get(root, ()))
    while left:
        item = left.pop()
        if item not in found:
            found.add(item)
            left.extend(ahead.get(item, ()))
    return found
