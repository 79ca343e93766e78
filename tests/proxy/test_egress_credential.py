"""Header credentials: where they go, where they never go, and what becomes of them when they come back."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.errors import CasemateError
from policies.plan import EgressRule, HeaderCredential, SecretBinding
from policies.slices import Birth
from policies.vocabulary import Component
from proxy.egress.credential import Credential, Redactor, credential_of, credentials
from proxy.egress.types import EgressRequest, Refused
from tests.proxy.kit import Names, Process, birth_of, firewall_for, make_plan, rule, run
from tests.proxy.outside import Server, echo, web
from tests.proxy.test_egress_hello import hello
from tests.proxy.test_egress_http import request
from tests.proxy.test_egress_inspect import lab
from tests.proxy.test_egress_tunnels import connect, door

VALUE = "hub-canary-0123456789-abcdef"
BOUND = HeaderCredential(header="authorization", secret="hub", scheme="Bearer")
SECRETS = {"hub": VALUE}
HOME = ["127.0.0.1"]


def test_it_replaces_what_the_agent_sent(root: Path) -> None:
    async def scenario() -> None:
        async with lab(root, credential=BOUND, secrets=SECRETS) as it:
            more = "Authorization: Bearer my-own\r\nAccept-Encoding: gzip\r\nRange: bytes=0-3\r\nConnection: close\r\n"
            answer = await it.ask(it.request(more=more))
            assert answer.startswith(b"HTTP/1.1 200")
        head = it.server.received[0].lower()
        assert head.count(b"authorization:") == 1
        assert f"authorization: bearer {VALUE}\r\n".encode() in head
        assert b"my-own" not in head
        assert b"accept-encoding: identity\r\n" in head
        assert b"range" not in head
        assert VALUE not in str(it.log.lines)
        assert it.log.denied == []

    run(scenario())


def test_a_name_that_some_servers_read_as_the_same_is_replaced_too(root: Path) -> None:
    async def scenario() -> None:
        bound = HeaderCredential(header="x-api-key", secret="hub", scheme="")
        async with lab(root, credential=bound, secrets=SECRETS) as it:
            await it.ask(it.request(more="X_Api_Key: mine\r\nX-Api_Key: mine\r\nConnection: close\r\n"))
        head = it.server.received[0].lower()
        assert f"x-api-key: {VALUE}\r\n".encode() in head
        assert b"mine" not in head

    run(scenario())


def test_another_rule_of_the_same_host_does_not_carry_it(root: Path) -> None:
    async def scenario() -> None:
        def more(port: int) -> list[EgressRule]:
            return [rule("a.example", port, methods=["POST"], inspect=True)]

        async with lab(root, methods=["GET"], credential=BOUND, secrets=SECRETS, more=more) as it:
            await it.ask(it.request(more="Connection: close\r\n"))
            await it.ask(it.request("POST", more="Content-Length: 0\r\nConnection: close\r\n"))
        got, posted = it.server.received
        assert VALUE.encode() in got
        assert VALUE.encode() not in posted

    run(scenario())


def test_it_never_goes_out_plain_nor_in_an_opaque_tunnel(root: Path) -> None:
    """Even where a plan says so that nobody checked: the firewall refuses, and nothing arrives."""

    async def scenario() -> None:
        async with web() as plain, echo() as opaque:
            rules = [
                rule("a.example", plain.port, "http", credential=BOUND),
                rule("a.example", opaque.port, credential=BOUND),
            ]
            plan = make_plan(egress=rules)
            async with firewall_for(plan, root, Names(a_example=HOME), secrets=SECRETS) as log:
                reader, writer = await asyncio.open_unix_connection(door(root))
                writer.write(request(plain))
                assert b"CSM-P019" in await reader.read()
                writer.close()
                reader, writer = await connect(door(root), "a.example", opaque.port)
                writer.write(hello("a.example"))
                assert (await reader.read(5))[:1] == b"\x16"  # the echo of a tunnel that nobody adds to
                writer.close()
            assert plain.received == []
            assert VALUE.encode() not in b"".join(opaque.received)
            assert log.denied == ["CSM-P019"]

    run(scenario())


@pytest.mark.parametrize(
    ("scheme", "host", "pattern", "inspect"),
    [
        ("http", "a.example", "a.example", False),
        ("https", "a.example", "*.example", True),
        ("https", "a.example", "a.example", False),
        ("https", "b.example", "b.example", True),
    ],
)
def test_injection_checks_the_place_again(scheme: str, host: str, pattern: str, inspect: bool) -> None:
    held = Credential("hub", "a.example", b"authorization", b"Bearer", VALUE.encode())
    asked = EgressRequest(scheme=scheme, host=host, port=443, method="GET", path="/")  # type: ignore[arg-type]
    with pytest.raises(Refused) as refused:
        held.inject([], asked, rule(pattern, scheme=scheme, inspect=inspect))  # type: ignore[arg-type]
    assert refused.value.code == "CSM-P019"
    right = EgressRequest(scheme="https", host="a.example", port=443, method="GET", path="/")
    headers = held.inject([], right, rule("a.example", inspect=True))
    assert (b"authorization", f"Bearer {VALUE}".encode()) in headers
    assert VALUE not in repr(held)


@pytest.mark.parametrize(
    "value",
    ["", "short", "two\r\nlines-of-it", "null\x00byte-in-it", " leading-space", "trailing-space ", "umlaut-ü-in-it"],
)
def test_a_value_that_cannot_stand_in_a_header_is_refused_at_the_start(root: Path, value: str) -> None:
    inspecting = rule("a.example", inspect=True, credential=BOUND)
    with pytest.raises(CasemateError) as refused:
        credentials([inspecting], {"hub": value})
    assert refused.value.code == "CSM-R009"
    assert len(value) < 4 or value not in str(refused.value)
    process = Process("egress", root, msgspec.json.encode(birth(value)))
    code, events, err = process.end()
    assert (code, events, err.split(":")[0]) == (2, [], "CSM-R009")
    assert len(value) < 4 or value not in err


def birth(value: str) -> Birth:
    plan = make_plan(egress=[rule("a.example", inspect=True, credential=BOUND)])
    binding = SecretBinding(name="hub", origin="env", key="HUB", holder="firewall", destination="a.example")
    plan = msgspec.structs.replace(plan, secrets=[*plan.secrets, binding])
    return msgspec.structs.replace(birth_of(plan, Component.FIREWALL), secrets={"hub": value})


def test_a_rule_whose_secret_is_missing_is_refused() -> None:
    with pytest.raises(Refused):
        credential_of(rule("a.example", inspect=True, credential=BOUND), [])


# ---- what comes back


@given(st.binary(max_size=60), st.lists(st.integers(min_value=0, max_value=200), max_size=8), st.binary(max_size=60))
def test_the_value_never_passes_however_it_is_cut(before: bytes, cuts: list[int], after: bytes) -> None:
    value = b"abcabcabd"
    text = before + value + after + value[:5] + value
    redactor = Redactor(value)
    places = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    parts = [redactor.part(text[a:b]) for a, b in pairwise(places)]
    whole = b"".join([*parts, redactor.rest()])
    assert value not in whole
    assert len(whole) == len(text)
    assert redactor.found


def test_what_cannot_be_its_beginning_is_not_kept_back() -> None:
    redactor = Redactor(b"secret-value")
    assert redactor.part(b"data: one\n\n") == b"data: one\n\n"  # an event of a stream arrives at once
    assert redactor.part(b"data: secr") == b"data: "
    assert redactor.part(b"ecy\n\n") == b"secrecy\n\n"
    assert not redactor.found


def dechunked(body: bytes) -> bytes:
    """What was said in chunks."""
    whole = b""
    while size := int(body.partition(b"\r\n")[0], 16):
        body = body.partition(b"\r\n")[2]
        whole, body = whole + body[:size], body[size + 2 :]
    return whole


@pytest.mark.parametrize("chunked", [False, True])
def test_a_destination_that_repeats_it_is_not_believed(root: Path, chunked: bool) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Sends the whole head back, as a header and as a body, byte by byte."""
        head = await reader.readuntil(b"\r\n\r\n")
        sent = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"authorization"))
        framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(head)
        writer.write(b"HTTP/1.1 200 OK\r\nX-You-Sent: " + sent + b"\r\n" + framing + b"\r\n\r\n")
        for byte in head:
            writer.write(b"1\r\n%c\r\n" % byte if chunked else bytes([byte]))
            await writer.drain()
        writer.write(b"0\r\n\r\n" if chunked else b"")
        await writer.drain()

    async def scenario() -> None:
        async with lab(root, credential=BOUND, secrets=SECRETS, server=Server(), serve=serve) as it:
            answer = await it.ask(it.request(more="Connection: close\r\nX-Kept: yes\r\n"))
        stars = b"*" * len(VALUE)
        assert VALUE.encode() not in answer
        assert b"x-you-sent: authorization: Bearer " + stars in answer
        body = answer.partition(b"\r\n\r\n")[2]
        if chunked:
            body = dechunked(body)
        assert b"authorization: Bearer " + stars in body
        assert b"x-kept: yes" in body  # what stood around it is whole
        assert set(it.log.denied) == {"CSM-P015"}
        assert it.log.named("egress.decided")[1]["attrs"]["casemate.secret.name"] == "hub"
        assert VALUE not in str(it.log.lines)

    run(scenario())


def test_an_answer_that_cannot_be_read_is_refused(root: Path) -> None:
    async def scenario() -> None:
        packed = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc"
        async with lab(root, credential=BOUND, secrets=SECRETS, answer=packed) as it:
            assert b"CSM-P015" in await it.ask(it.request())
        async with lab(root, answer=packed) as control:  # without a secret, it is nobody's business
            assert b"content-encoding: gzip" in await control.ask(control.request(more="Connection: close\r\n"))

    run(scenario())
