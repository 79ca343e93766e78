"""`python -m tests.schemas`: write the JSON Schemas that are generated from types."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import msgspec

from policies.plan import Plan
from policies.writes import Proposal

FOLDER = Path(__file__).resolve().parents[1] / "policies" / "schemas"
GENERATED: dict[str, type[msgspec.Struct]] = {"plan": Plan, "proposal": Proposal}


def generated(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the schema of a type; Python versions indent docstrings differently, so they are evened out."""
    schema: dict[str, Any] = _even(msgspec.json.schema(kind))
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _even(value: Any) -> Any:
    match value:
        case dict():
            clean = inspect.cleandoc
            return {k: clean(v) if k == "description" and isinstance(v, str) else _even(v) for k, v in value.items()}
        case list():
            return [_even(item) for item in value]
        case _:
            return value


def main() -> None:
    """Write them."""
    for name, kind in GENERATED.items():
        (FOLDER / f"{name}.schema.json").write_text(json.dumps(generated(kind), indent=2) + "\n")


if __name__ == "__main__":
    main()
