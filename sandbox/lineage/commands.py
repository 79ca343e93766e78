"""What people see of lineage: the verdict with its path, and the graph as text, DOT or SVG."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal, TypeAlias, assert_never

from policies.errors import CasemateError
from policies.vocabulary import ExitCode
from sandbox.language.workflow import Workflow
from sandbox.lineage.case import case_of
from sandbox.lineage.gate import Exposure, LineageVerdict, judge, tell
from sandbox.lineage.registry import registry
from sandbox.lineage.types import Edge, Kinship, LineageFacts, Node, NodeKind

Word: TypeAlias = Literal["human", "cross", "same_init", "unknown"]

_SHAPES = {
    NodeKind.MODEL: "box",
    NodeKind.DATASET: "cylinder",
    NodeKind.JOB: "hexagon",
    NodeKind.HUMAN: "ellipse",
}
_WORDS = {
    Kinship.HUMAN: "only people's text, as far as there are records",
    Kinship.CROSS: "models of other initial checkpoints",
    Kinship.SAME_INIT: "a model of the same initial checkpoint: refused",
    Kinship.UNKNOWN: "something of unknown origin: refused",
}


def verdict_of(workflow: Workflow, digests: Mapping[str, str], facts: LineageFacts) -> LineageVerdict:
    """Return the verdict on a workflow; raise CSM-R018 where it has no student. Exceptions do not change it."""
    if workflow.lineage is None:
        hint = "say which model will be trained: lineage: {student: {model: …}}"
        raise CasemateError("CSM-R018", "the workflow names no student", hint=hint, exit_code=ExitCode.USAGE)
    return judge(case_of(workflow, digests, facts.records), registry())


def exposure(verdict: LineageVerdict) -> Word:
    """Return the verdict as the word that stands in a plan."""
    match verdict.verdict:
        case Kinship.HUMAN:
            return "human"
        case Kinship.CROSS:
            return "cross"
        case Kinship.SAME_INIT:
            return "same_init"
        case Kinship.UNKNOWN:
            return "unknown"
        case other:
            assert_never(other)


def check_text(verdict: LineageVerdict) -> str:
    """Return the verdict in words, the shortest path to it, and every model."""
    lines = [f"{verdict.graph.student}: {verdict.verdict.name} — exposed to {_WORDS[verdict.verdict]}"]
    if verdict.path:
        lines.append(f"  path: {tell(verdict.path)}")
    lines += [f"  because: {reason}" for reason in verdict.reasons]
    lines.append(f"  generation: {verdict.generation} of model-made data between the student and people's text")
    lines += [f"  flywheel: {', '.join(sorted(group))} learn from each other" for group in verdict.flywheels]
    return "\n".join([*lines, *(f"  {_line(e)}" for e in _shown(verdict))])


def check_json(verdict: LineageVerdict) -> dict[str, object]:
    """Return the verdict for programs."""
    return {
        "student": verdict.graph.student.key.removeprefix("student "),
        "verdict": exposure(verdict),
        "refused": verdict.verdict.refused,
        "path": [_edge_json(edge) for edge in verdict.path],
        "reasons": list(verdict.reasons),
        "generation": verdict.generation,
        "flywheels": [sorted(group) for group in verdict.flywheels],
        "forged": [node.key for node in verdict.forged],
        "exposures": [
            {"kind": e.node.kind.value, "id": e.node.key, "verdict": e.kinship.name.lower(), "reason": e.reason}
            for e in verdict.exposures
        ],
    }


def graph_text(verdict: LineageVerdict) -> str:
    """Return the graph, an edge a line."""
    return "\n".join(f"{e.source} —{e.relation.value}→ {e.target}" for e in _edges(verdict))


def graph_dot(verdict: LineageVerdict) -> str:
    """Return the graph in DOT; what is refused stands in red."""
    colours = {e.node: "red" for e in verdict.exposures if e.kinship.refused}
    edges = _edges(verdict)
    nodes = dict.fromkeys([verdict.graph.student, *(node for e in edges for node in (e.source, e.target))])
    lines = ["digraph lineage {", "  rankdir=LR;"]
    for node in nodes:
        style = f"shape={_SHAPES[node.kind]}, color={colours.get(node, 'black')}"
        lines.append(f"  {_name(node)} [label={json.dumps(str(node))}, {style}];")
    lines += [f"  {_name(e.source)} -> {_name(e.target)} [label={e.relation.value}];" for e in edges]
    return "\n".join([*lines, "}"])


def graph_svg(dot: str) -> str:
    """Return DOT drawn as SVG by Graphviz; raise CSM-R017 where this host does not have it."""
    import shutil
    import subprocess

    program = shutil.which("dot")
    if program is None:
        hint = "install Graphviz, or take --format dot"
        raise CasemateError("CSM-R017", "there is no `dot` on this host", hint=hint, exit_code=ExitCode.USAGE)
    done = subprocess.run([program, "-Tsvg"], input=dot, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603
    if done.returncode != 0:
        raise CasemateError("CSM-R017", f"dot failed: {done.stderr[:300]}")
    return done.stdout


def _edges(verdict: LineageVerdict) -> list[Edge]:
    return [edge for edges in verdict.graph.edges.values() for edge in edges]


def _shown(verdict: LineageVerdict) -> list[Exposure]:
    return [e for e in verdict.exposures if e.node.kind is NodeKind.MODEL or e.kinship is Kinship.UNKNOWN]


def _line(item: Exposure) -> str:
    return f"{item.kinship.name.lower():9} {item.node}: {item.reason}"


def _edge_json(edge: Edge) -> dict[str, str]:
    return {"from": edge.source.key, "relation": edge.relation.value, "to": edge.target.key}


def _name(node: Node) -> str:
    return json.dumps(f"{node.kind.value} {node.key}")
