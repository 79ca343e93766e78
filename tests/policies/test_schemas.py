"""The published schemas are those of the code."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from policies.plan import Plan
from policies.vocabulary import ATTRIBUTES, Component, EventName, Verdict
from policies.writes import Proposal

FOLDER = Path(__file__).resolve().parents[2] / "policies" / "schemas"


@pytest.mark.parametrize(("name", "kind"), [("plan", Plan), ("proposal", Proposal)])
def test_the_schema_file_is_generated_from_the_type(name: str, kind: type[msgspec.Struct]) -> None:
    published = json.loads((FOLDER / f"{name}.schema.json").read_text())
    published.pop("$schema")
    assert published == msgspec.json.schema(kind)


def test_the_event_schema_has_the_closed_vocabulary() -> None:
    properties = json.loads((FOLDER / "event.schema.json").read_text())["properties"]
    assert properties["event"]["enum"] == [e.value for e in EventName]
    assert properties["actor"]["enum"] == [c.value for c in Component]
    assert properties["verdict"]["enum"] == [*[v.value for v in Verdict], None]
    assert properties["attrs"]["propertyNames"]["enum"] == sorted(ATTRIBUTES)
