"""History of outputs: anchors that people committed, and candidates that were learned from applied writes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from policies.canonical import canonical
from policies.events import clean
from policies.history import drift, learn, promoted
from policies.plan import Candidate, Distribution, Plan
from sandbox.records.committed import read_committed, write_committed

NAME = "casemate.history.json"
Fields = Mapping[str, Distribution]
TABLE = """
create table if not exists candidates (
  name text not null, output text not null, state text not null, primary key (name, output)
) strict;
"""
_candidates = msgspec.json.Decoder(dict[str, Candidate])


def read_anchors(root: Path) -> dict[str, dict[str, Distribution]]:
    """Return the anchors of a project, by output and field; raise CSM-C061 for a file that cannot be read."""
    hint = "write it with `casemate history anchor`"
    return read_committed(root / NAME, dict[str, dict[str, Distribution]], hint) or {}


def write_anchor(root: Path, output: str, fields: Fields) -> None:
    """Make `fields` the anchor of an output."""
    anchors = read_anchors(root) | {output: dict(fields)}
    write_committed(root / NAME, msgspec.to_builtins(anchors))


class Candidates:
    """What applied writes of every workflow of a project were like, in its journal."""

    def __init__(self, journal: Callable[[], AbstractContextManager[sqlite3.Connection]]) -> None:
        self._journal = journal

    def of(self, name: str) -> dict[str, dict[str, Candidate]]:
        """Return the candidates of a workflow, by output and field."""
        with self._journal() as journal:
            rows = journal.execute("select output, state from candidates where name = ?", (name,)).fetchall()
        return {output: _candidates.decode(state) for output, state in rows}

    def learn(self, plan: Plan, applied: Mapping[str, Fields]) -> None:
        """Take in what was applied. Fields without an anchor have no candidate."""
        with self._journal() as journal:
            journal.execute("begin immediate")
            for output in plan.outputs:
                row = journal.execute(
                    "select state from candidates where name = ? and output = ?", (plan.name, output.name)
                ).fetchone()
                known = _candidates.decode(row[0]) if row else {}
                for field, values in applied.get(output.name, {}).items():
                    bound = output.bounds.get(field)
                    if bound is not None and bound.anchor is not None:
                        known[field] = learn(bound.anchor, known.get(field), values)
                if known:
                    state = canonical(msgspec.to_builtins(known)).decode()
                    journal.execute(
                        "insert or replace into candidates values (?, ?, ?)", (plan.name, output.name, state)
                    )

    def forget(self, name: str, output: str) -> None:
        """Begin anew: the anchor is another one now."""
        with self._journal() as journal:
            journal.execute("delete from candidates where name = ? and output = ?", (name, output))


def told(candidates: Mapping[str, Mapping[str, Candidate]]) -> dict[str, str]:
    """Return the facts that tell customs of the candidates of a workflow."""
    return {f"candidate/{o}": canonical(msgspec.to_builtins(fields)).decode() for o, fields in candidates.items()}


def described(plan: Plan, candidates: Mapping[str, Mapping[str, Candidate]]) -> Iterator[str]:
    """Yield, in words, how far each field has moved from its anchor."""
    for output in plan.outputs:
        for field, bound in output.bounds.items():
            if bound.sigma is None:
                continue
            if bound.anchor is None:
                yield f"{output.name}.{field}: no anchor; what is proposed is held"
                continue
            yield f"{output.name}.{field}: anchor {_words(bound.anchor)}"
            if (candidate := candidates.get(output.name, {}).get(field)) is not None:
                now = promoted(candidate, bound.anchor.nulls)
                yield f"  since then {_words(now)}"
                yield from (f"  {why}" for why in drift(bound.anchor, candidate, now))


def _words(values: Distribution) -> str:
    if values.shares:
        most = sorted(values.shares.items(), key=lambda pair: (-pair[1], pair[0]))[:10]
        return f"{values.n:,} values: {', '.join(f'{clean(name, 40)} {share:.1%}' for name, share in most)}"
    middle = values.centiles[len(values.centiles) // 2]
    return f"{values.n:,} values, mean {values.mean:.4g}, standard deviation {values.sd:.4g}, median {middle:.4g}"
