"""Supplies: what is put into a cell before anybody runs in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from policies.canonical import digest
from policies.errors import CasemateError
from policies.plan import Plan
from policies.vocabulary import ExitCode
from sandbox.resolve import MAX_INPUT, read_inside


@dataclass(frozen=True, slots=True, kw_only=True)
class Supplies:
    """What is put into a cell: `inputs` for /inputs, `authorities` for /casemate, by file name; `secrets` by name.

    A secret goes to the one server in a container whose it is, and to nobody else.
    """

    inputs: Mapping[str, bytes]
    authorities: Mapping[str, bytes]
    secrets: Mapping[str, str]


def read_inputs(plan: Plan, root: Path) -> dict[str, bytes]:
    """Return the content of every input by name; raise CSM-R013 when one is not what was compiled."""
    inputs = {}
    for item in plan.inputs:
        inputs[item.name] = read_inside(root, item.path, MAX_INPUT)
        if digest(inputs[item.name]) != item.digest:
            message = f'input "{item.path}" is not what was compiled'
            raise CasemateError("CSM-R013", message, hint="compile again", exit_code=ExitCode.REFUSED)
    return inputs
