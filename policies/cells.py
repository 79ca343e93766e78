"""Cells by name: a stage has one of its own name, or one for each of its shards, `<stage>.<number>`. Pure.

No stage can have a shard's name, and no server of a stage: a name does not begin with a digit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from policies.errors import CasemateError

MAX_SHARDS = 10_000
FACT = "cells"
"""The fact that tells a trusted process which cells it will meet, by name, separated by spaces."""
CELL = r"[a-z][a-z0-9_-]{0,39}(\.(0|[1-9][0-9]{0,3}))?"


def shard_name(stage: str, number: int) -> str:
    """Return the name of a shard's cell."""
    return f"{stage}.{number}"


def parted(cell: str) -> tuple[str, int | None]:
    """Return the stage of a cell, and the number of its shard if it is one."""
    stage, dot, number = cell.partition(".")
    return stage, int(number) if dot else None


def cells_of(stage: str, shards: int | None) -> list[str]:
    """Return the cells of a stage, in order. `shards`: how many it has; None when it is not in parts."""
    return [stage] if shards is None else [shard_name(stage, number) for number in range(shards)]


def in_order(cells: Iterable[str]) -> list[str]:
    """Sort cells by the names of stages, then by the numbers of shards."""
    return sorted(cells, key=lambda cell: (parted(cell)[0], parted(cell)[1] or 0))


def met(facts: Mapping[str, str], stages: Mapping[str, int | None], place: str) -> dict[str, list[str]]:
    """Return which cells of each stage a process will meet: those of the fact; without it, those of whole stages.

    `stages`: how many shards each has. Raises CSM-R010 for a cell that no stage has.
    """
    found: dict[str, list[str]] = {stage: [] for stage in stages}
    told = facts.get(FACT)
    whole = [stage for stage, shards in stages.items() if shards is None]
    for cell in whole if told is None else told.split():
        stage, number = parted(cell) if re.fullmatch(CELL, cell) else ("", None)
        shards = stages.get(stage)
        if stage not in stages or (shards is None) != (number is None) or (number or 0) >= (shards or 1):
            raise CasemateError("CSM-R010", f"no stage has the cell {cell[:60]}", place=place)
        found[stage].append(cell)
    return found
