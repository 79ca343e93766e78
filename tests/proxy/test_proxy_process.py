"""The two processes as an engine starts them: birth, doors, end."""

from __future__ import annotations

import base64
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from cryptography import x509

from policies.slices import Birth
from policies.vocabulary import Component
from tests.proxy.kit import KEY, REPOSITORY, Process, birth_of, code_of, converse, make_plan, rule, run, started

PARTS = [("egress", Component.FIREWALL), ("llm", Component.LLM)]


def sockets(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*.sock"))


@pytest.mark.parametrize(("name", "component"), PARTS)
def test_a_process_binds_its_doors_says_it_is_ready_and_stops_cleanly(
    name: str, component: Component, root: Path
) -> None:
    with started(name, root, birth_of(make_plan(), component)) as process:
        doors = sockets(root)
        assert {stat.S_IMODE(door.stat().st_mode) for door in doors} == {0o660}
        kind = {"egress": {"egress.sock", "up.sock"}, "llm": {"llm.sock"}}[name]
        assert {door.name for door in doors} == kind
        code, events, err = process.stop()
    assert (code, events, err) == (0, [], "")
    assert sockets(root) == []


def corrupt(birth: Birth, what: str) -> bytes:
    match what:
        case "slice":
            return msgspec.json.encode(msgspec.structs.replace(birth, slice=birth.slice.replace("1", "2", 1)))
        case "seal":
            seal = msgspec.structs.replace(birth.seal, body="sha256:" + "0" * 64)
            return msgspec.json.encode(msgspec.structs.replace(birth, seal=seal))
        case "field":
            return msgspec.json.encode(birth)[:-1] + b',"more":1}'
        case "short":
            return msgspec.json.encode(birth)[:-1]
        case _:
            return b""


@pytest.mark.parametrize("what", ["slice", "seal", "field", "short", "nothing"])
@pytest.mark.parametrize(("name", "component"), PARTS)
def test_a_birth_that_differs_by_one_byte_is_refused_before_anything_is_bound(
    name: str, component: Component, what: str, root: Path
) -> None:
    process = Process(name, root, corrupt(birth_of(make_plan(), component), what))
    code, events, err = process.end()
    assert (code, events) == (2, [])
    assert err.startswith("CSM-R010")
    assert sockets(root) == []
    assert KEY not in err


def test_another_components_slice_is_refused(root: Path) -> None:
    process = Process("egress", root, msgspec.json.encode(birth_of(make_plan(), Component.LLM)))
    assert process.end()[0] == 2
    assert sockets(root) == []


def test_a_missing_key_is_refused(root: Path) -> None:
    birth = msgspec.structs.replace(birth_of(make_plan(), Component.LLM), secrets={})
    code, _, err = Process("llm", root, msgspec.json.encode(birth)).end()
    assert (code, err.split(":")[0]) == (2, "CSM-R009")


def test_a_missing_volume_is_refused(root: Path) -> None:
    (root / "doors" / "other").rmdir()
    code, _, err = Process("egress", root, msgspec.json.encode(birth_of(make_plan(), Component.FIREWALL))).end()
    assert (code, err.split(":")[0]) == (2, "CSM-R017")


def test_an_event_that_cannot_be_written_denies_and_ends_the_process(root: Path) -> None:
    with started("egress", root, birth_of(make_plan(egress=[rule("a.example.com")]), Component.FIREWALL)) as process:
        assert process.child.stdout is not None
        process.child.stdout.close()  # whoever keeps the events is gone
        process.child.stdout = None
        door = root / "doors" / "work" / "egress.sock"
        assert run(converse(door, b"CONNECT b.example.com:443 HTTP/1.1\r\n\r\n")) == b""
        assert process.child.wait(timeout=30) == 1


def test_the_firewall_process_denies_with_one_event(root: Path) -> None:
    plan = make_plan(egress=[rule("a.example.com")])
    with started("egress", root, birth_of(plan, Component.FIREWALL)) as process:
        door = root / "doors" / "work" / "egress.sock"
        answer = run(converse(door, b"CONNECT b.example.com:443 HTTP/1.1\r\nHost: b.example.com:443\r\n\r\n"))
        assert code_of(answer) == "CSM-P003"
        _, events, err = process.stop()
    (event,) = events
    assert (event["event"], event["verdict"], event["rule"]) == ("egress.decided", "deny", "CSM-P003")
    assert (event["stage"], event["attrs"]["server.address"]) == ("work", "b.example.com")
    assert err == ""


def test_trap_9_the_packages_folder_is_never_on_the_import_path(root: Path) -> None:
    script = str(REPOSITORY / "proxy" / "__main__.py")
    environment = {"PYTHONPATH": str(REPOSITORY)}
    ended = subprocess.run(
        [sys.executable, script, "egress"], input=b"", capture_output=True, env=environment, timeout=60
    )
    assert (ended.returncode, ended.stdout) == (2, b"")
    assert b"python -m proxy" in ended.stderr


@pytest.mark.parametrize("inspect", [True, False])
def test_the_firewall_publishes_the_public_part_of_its_authority_only_where_it_inspects(
    root: Path, inspect: bool
) -> None:
    plan = make_plan(egress=[rule("a.example.com", inspect=inspect)])
    process = Process("egress", root, msgspec.json.encode(birth_of(plan, Component.FIREWALL)))
    attrs = process.event()["attrs"]
    process.stop()
    assert list(attrs) == (["casemate.certificate"] if inspect else [])
    if inspect:
        certificate = x509.load_der_x509_certificate(base64.b64decode(attrs["casemate.certificate"]))
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        assert (constraints.ca, constraints.path_length) == (True, 0)
