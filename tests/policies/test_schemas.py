"""The published schemas are those of the code."""

from __future__ import annotations

import json

import pytest

from policies.vocabulary import ATTRIBUTES, Component, EventName, Verdict
from tests.schemas import FOLDER, GENERATED, generated


@pytest.mark.parametrize("name", GENERATED)
def test_the_schema_file_is_generated_from_the_type(name: str) -> None:
    assert json.loads((FOLDER / f"{name}.schema.json").read_text()) == generated(GENERATED[name])


def test_the_event_schema_has_the_closed_vocabulary() -> None:
    properties = json.loads((FOLDER / "event.schema.json").read_text())["properties"]
    assert properties["event"]["enum"] == [e.value for e in EventName]
    assert properties["actor"]["enum"] == [c.value for c in Component]
    assert properties["verdict"]["enum"] == [*[v.value for v in Verdict], None]
    assert properties["attrs"]["propertyNames"]["enum"] == sorted(ATTRIBUTES)
