"""Doors of a process that was started before its stages were known: links to slots."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from policies.vocabulary import Component
from proxy.start import Roots, lay_doors
from tests.proxy.kit import birth_of, code_of, converse, make_plan, run, started


def test_a_birth_message_without_slots_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "doors").mkdir()
    lay_doors(birth_of(make_plan(), Component.FIREWALL), Roots.under(tmp_path))
    assert list((tmp_path / "doors").iterdir()) == []


@pytest.mark.parametrize("component", [Component.FIREWALL, Component.LLM])
def test_a_process_serves_each_stage_at_the_slot_it_was_told(root: Path, component: Component) -> None:
    for folder in (root / "doors").iterdir():
        folder.rmdir()
    names = ["other", "work", "up-teacher", "up-remote"]
    for n in range(len(names)):
        (root / "slots" / str(n)).mkdir(parents=True)
    birth = msgspec.structs.replace(
        birth_of(make_plan(), component), facts={"doors": " ".join(f"{name}={n}" for n, name in enumerate(names))}
    )
    name, socket = ("egress", "egress.sock") if component is Component.FIREWALL else ("llm", "llm.sock")
    with started(name, root, birth) as process:
        for n in (0, 1):
            head = b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n"
            if component is Component.LLM:
                head = b"GET /v1/files HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            assert code_of(run(converse(root / "slots" / str(n) / socket, head))).startswith("CSM-P0")
            assert process.event()["stage"] == names[n]
