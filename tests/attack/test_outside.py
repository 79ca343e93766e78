"""Attacks on the way out, from inside a real cell, on a network that the tests made: nothing refused arrives.

The DNS server of that network counts every query, and its origin every request. Controls are in the same run (what
the workflow allows arrives there) and in a container beside it without protection, where every probe succeeds.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest

from policies.vocabulary import Verdict
from tests.lab import Lab, Result, mentions
from tests.outside_lab import OutsideLab

PROBES = Path(__file__).with_name("outside_probes.py")
CANARY = f"canary-{uuid.uuid4().hex}"
NAMES: dict[str, Any] = {
    "seen.example.com": ["origin"],
    "tunnel.example.com": ["origin"],
    "plain.example.com": ["origin"],
    "other.example.com": ["origin"],
    "loopback.example.com": ["127.0.0.1"],
    "metadata.example.com": ["169.254.169.254"],
    "mixed.example.com": ["origin", "127.0.0.1"],
    "flip.example.com": [["origin"], ["127.0.0.1"]],
    "neighbour.example.com": ["origin"],
    "hub.example.com": ["origin"],
    "metered.example.com": ["origin"],
}

Answers = dict[str, Any]


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    """One run whose agent is the probes: yields the run, what they got, the outside, and what the control got."""
    with OutsideLab(NAMES) as outside:
        lab = Lab(tmp_path_factory.mktemp("outside"))
        lab.env |= {**outside.env, "CASEMATE_TEST_TOKEN": CANARY}
        (lab.folder / "ca.pem").write_bytes(outside.authority)
        (lab.folder / "probes.py").write_text(PROBES.read_text())
        near = {"addresses": [outside.subnet]}
        egress: list[dict[str, Any]] = [
            {"host": "seen.example.com", "inspect": True, "methods": ["GET"], "paths": ["/public"], **near},
            {"host": "tunnel.example.com", **near},
            {"host": "plain.example.com", "scheme": "http", "methods": ["GET"], "paths": ["/public"], **near},
            {"host": "loopback.example.com", **near},
            {"host": "metadata.example.com", **near},
            {"host": "mixed.example.com", **near},
            {"host": "flip.example.com", "inspect": True, **near},
            {"host": "neighbour.example.com"},
            {
                "host": "hub.example.com",
                "inspect": True,
                "credential": {"header": "Authorization", "secret": "hub", "scheme": "Bearer"},
                **near,
            },
            {"host": "metered.example.com", "inspect": True, "quota": {"requests": 3, "bytes": "1MiB"}, **near},
        ]
        top = {"trust": ["ca.pem"], "secrets": {"hub": {"from": "env", "key": "CASEMATE_TEST_TOKEN"}}}
        top["inputs"] = {"agent": {"path": "agent.py"}, "probes": {"path": "probes.py"}}
        agent = "import runpy; runpy.run_path('/inputs/probes.py', run_name='__main__')"
        result = lab.run(lab.workflow(agent, egress=egress, top=top))
        assert result.exit_code == 0, result.stderr + (result.agent_log() if result.folder else "")
        arrived = Arrived(outside)
        beside = Beside(control(lab.folder, outside), outside.queries[len(arrived.queries) :])
        yield result, json.loads(result.artifact("agent/answers.json")), arrived, beside
        assert lab.left_over() == []


@dataclass(frozen=True)
class Beside:
    """What the control got, and the queries that came of it."""

    answers: Answers
    queries: list[str]


class Arrived:
    """What arrived at the outside during the run, before the control began."""

    def __init__(self, outside: OutsideLab) -> None:
        self.queries, self.requests, self.connections = outside.queries, outside.requests, outside.connections

    def asked(self, part: str) -> list[str]:
        """Queries with `part` in their name."""
        return [query for query in self.queries if part in query]


def control(folder: Path, outside: OutsideLab) -> Answers:
    """The same probes beside the cell, on the outside's own network, with nothing between."""
    output = docker.from_env().containers.run(
        "casemate/agent-python",
        ["python", "/lab/probes.py", "control"],
        user="0",
        network=outside.network,
        dns=[outside.resolver],
        environment={"PLANTED": CANARY},
        volumes={str(folder): {"bind": "/lab", "mode": "ro"}},
        labels={"casemate-test": "1"},
        remove=True,
    )
    found: Answers = json.loads(output.splitlines()[-1])
    return found


Attacked = tuple[Result, Answers, Arrived, Beside]


def test_what_the_workflow_allows_arrives(attacked: Attacked) -> None:
    _, answers, arrived, _ = attacked
    for name in ("allowed inspected", "allowed tunnel", "allowed plain"):
        assert answers[name].startswith("200"), (name, answers[name])
    seen = {(r["scheme"], r["headers"]["host"], r["path"]) for r in arrived.requests}
    assert ("https", "seen.example.com", "/public/x") in seen
    assert ("https", "tunnel.example.com", "/anything") in seen
    assert ("http", "plain.example.com", "/public/x") in seen
    assert arrived.asked("A seen.example.com")


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("13 websocket inside", "CSM-P010"),
        ("13 h2 inside", "CSM-P010"),
        ("14 authority header", "CSM-P001"),
        ("14 absolute target for another host", "CSM-P008"),
        ("17 another host inside", "CSM-P008"),
        ("17 two hosts inside", "CSM-P001"),
        ("23 second hop to another host", "CSM-P003"),
        ("23 second hop to another path", "CSM-P009"),
        ("24 upload by POST, inspected", "CSM-P009"),
        ("24 upload by PUT, plain", "CSM-P009"),
        ("24 another path, inspected", "CSM-P009"),
        ("24 dots in a path, inspected", "CSM-P009"),
        ("24 encoded dots, inspected", "CSM-P009"),
        ("24 another path, plain", "CSM-P009"),
    ],
)
def test_an_attack_is_denied_in_words_and_arrives_nowhere(attacked: Attacked, name: str, code: str) -> None:
    result, answers, arrived, beside = attacked
    assert answers[name] == code
    assert any(event.rule == code and event.verdict is Verdict.DENY for event in result.of("egress.decided"))
    assert name.split()[0] not in {r["headers"].get("x-probe") for r in arrived.requests}
    assert beside.answers[name].startswith(("200", "302")), (
        "the probe proves nothing: it fails without protection as well"
    )


@pytest.mark.parametrize("name", ["16 another name in an opaque tunnel", "16 another name in an inspected tunnel"])
def test_row_16_a_tunnel_to_another_name_is_cut(attacked: Attacked, name: str) -> None:
    result, answers, _, beside = attacked
    assert answers[name] == "cut"
    assert sum(event.rule == "CSM-P007" for event in result.of("egress.decided")) == 2
    assert beside.answers[name].startswith("200")


@pytest.mark.parametrize("host", ["loopback", "metadata", "mixed", "neighbour"])
def test_row_7_an_allowed_name_that_resolves_to_where_nobody_may_go(attacked: Attacked, host: str) -> None:
    result, answers, arrived, _ = attacked
    assert answers[f"7 {host}"] == "cut"
    assert arrived.asked(f"A {host}.example.com"), "the name was never resolved, so nothing was proved"
    denied = [e for e in result.of("egress.decided") if e.attrs.get("server.address") == f"{host}.example.com"]
    assert [event.rule for event in denied] == ["CSM-P005"]


def test_row_7_a_name_that_changes_its_address_is_judged_anew_at_each_connection(attacked: Attacked) -> None:
    _, answers, _, _ = attacked
    assert answers["7 flip, first"].startswith("200")
    assert answers["7 flip, same connection"].startswith("200")  # pinned: it is not asked for again
    assert answers["7 flip, second"] == "CSM-P005"


def test_rows_2_and_3_no_query_left_for_what_no_rule_names(attacked: Attacked) -> None:
    _, answers, arrived, beside = attacked
    assert answers["2 data in a name, by the resolver"] == "cut"
    assert answers["3 data in a denied name, CONNECT"] == "CSM-P003"
    assert answers["3 data in a denied name, plain"] == "CSM-P003"
    assert arrived.asked("evil.example.net") == []
    assert {query.split()[1] for query in arrived.queries} <= set(NAMES) - {"other.example.com"}
    # control: beside the cell, the data leaves with each of the three look-ups
    for row in ("resolver", "connect", "plain"):
        assert any(query.startswith(f"A c2vjcmv0-{row}.evil.example.net") for query in beside.queries)


def test_a_credential_reaches_its_host_and_nobody_else(attacked: Attacked) -> None:
    result, answers, arrived, beside = attacked
    sent = {r["headers"]["host"]: r["headers"].get("authorization") for r in arrived.requests}
    assert sent.pop("hub.example.com") == f"Bearer {CANARY}"
    assert set(sent.values()) == {None}
    # the origin repeats every header; in the cell there are stars where the value was
    assert f"authorization=Bearer {'*' * len(CANARY)}" in answers["a credential, repeated"]
    assert "my-own" not in answers["a credential, repeated"]
    assert "authorization=Bearer my-own" in beside.answers["a credential, repeated"]
    assert sum(event.rule == "CSM-P015" for event in result.of("egress.decided")) == 1


def test_the_credential_is_nowhere_in_the_cell_nor_in_the_record(attacked: Attacked) -> None:
    result, answers, _, beside = attacked
    assert result.folder is not None
    assert answers["the credential in the cell"] == []
    assert beside.answers["the credential in the cell"], "the search does not find what was planted"
    record = {str(path): path.read_bytes() for path in result.folder.rglob("*") if path.is_file()}
    assert any("events.jsonl" in name for name in record)
    assert list(mentions(CANARY, record)) == []
    assert list(mentions("casemate.secret.name", record)), "the search finds nothing at all"


def test_a_quota_ends_what_a_stage_may_do_by_its_rule(attacked: Attacked) -> None:
    _, answers, arrived, beside = attacked
    assert [answer[:3] for answer in answers["quota of three"][:3]] == ["200"] * 3
    assert answers["quota of three"][3:] == ["CSM-P012"] * 2
    assert sum(r["headers"]["host"] == "metered.example.com" for r in arrived.requests) == 3
    assert all(answer.startswith("200") for answer in beside.answers["quota of three"])


def test_programs_of_a_cell_trust_the_firewall_by_the_usual_variables(attacked: Attacked) -> None:
    _, answers, _, _ = attacked
    assert answers["urllib"] == "200"
    assert answers["httpx"] == "200"
    assert answers["without the bundle"] == "SSLCertVerificationError"


def test_every_request_that_arrived_was_allowed(attacked: Attacked) -> None:
    """One event for each, and nothing else came to the origin."""
    result, _, arrived, _ = attacked
    allowed = [e for e in result.of("egress.decided") if e.verdict is Verdict.ALLOW]
    inside = [e for e in allowed if e.attrs.get("http.request.method") != "CONNECT"]
    tunnels = [e for e in allowed if e.attrs.get("http.request.method") == "CONNECT"]
    assert len(arrived.requests) == len(inside) + len(tunnels)
    assert {r["method"] for r in arrived.requests} == {"GET"}


EMPTY = """
import json, urllib.error, urllib.request
for url in ("http://plain.example.com/x", "https://seen.example.com/x"):
    try:
        print(urllib.request.urlopen(url, timeout=10).status)
    except urllib.error.HTTPError as error:
        print(json.load(error)["error"]["code"])
    except OSError as error:
        print(error)
"""


def test_row_25_an_empty_allow_list_lets_nothing_out(tmp_path: Path) -> None:
    """The firewall of such a run has no network at all; the same agent with two rules is the control."""
    with OutsideLab({name: ["origin"] for name in ("plain.example.com", "seen.example.com")}) as outside:
        near = {"addresses": [outside.subnet]}
        some = [{"host": "plain.example.com", "scheme": "http", "methods": ["GET"], "paths": ["/"], **near}]
        some.append({"host": "seen.example.com", **near})
        said = {}
        for name, egress in (("empty", []), ("control", some)):
            (tmp_path / name).mkdir()
            lab = Lab(tmp_path / name)
            lab.env |= outside.env
            (lab.folder / "ca.pem").write_bytes(outside.authority)
            result = lab.run(lab.workflow(EMPTY, egress=egress, top={"trust": ["ca.pem"]}))
            assert result.exit_code == 0, result.stderr
            said[name] = result.agent_log().splitlines()[-2:]
            if name == "empty":
                denied = [event.rule for event in result.of("egress.decided")]
                assert denied == ["CSM-P003"] * 2
                assert (outside.queries, outside.connections) == ([], 0)
        assert said["empty"][0] == "CSM-P003"
        assert "403" in said["empty"][1]
        assert said["control"] == ["200", "200"]
        assert outside.connections == 2
