"""Heads, names, rules and addresses, by table; then by whatever else there is."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.hosts import NotAHostError, host_name, matches
from policies.vocabulary import Verdict
from proxy.egress.addresses import is_inside, is_public
from proxy.egress.answers import refusal
from proxy.egress.decide import decide
from proxy.egress.framing import onward
from proxy.egress.head import MAX_HEAD, parse_head, split_head
from proxy.egress.normalise import normalise, normalise_inner
from proxy.egress.types import EgressRequest, Refused
from tests.proxy.kit import code_of, rule


def judge(head: bytes) -> EgressRequest | str:
    """What a head means, or the code of its refusal."""
    try:
        if split_head(head) is None:
            return "incomplete"
        return normalise(parse_head(head))
    except Refused as refused:
        return refused.code


@pytest.mark.parametrize(
    ("head", "code"),
    [
        (b"GET http://a.example/ HTTP/1.1\nHost: a.example\n\n", "CSM-P001"),  # bare LF
        (b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\n\r\n", "CSM-P001"),
        (b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n X: folded\r\n\r\n", "CSM-P001"),
        (b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nX: a\r\n\tb\r\n\r\n", "CSM-P001"),
        (b"GET http://a.example/ HTTP/1.1\r\nHost : a.example\r\n\r\n", "CSM-P001"),
        (b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n", "CSM-P001"),
        (b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nX: \x00\r\n\r\n", "CSM-P001"),
        (b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nX: a\rb\r\n\r\n", "CSM-P001"),
        (b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nno colon\r\n\r\n", "CSM-P001"),
        (b"GET  http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", "CSM-P001"),
        (b"GET http://a.example/ HTTP/1.1 \r\nHost: a.example\r\n\r\n", "CSM-P001"),
        (b"GET http://a.example/ HTTP/3\r\nHost: a.example\r\n\r\n", "CSM-P001"),
        (b"G(T http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", "CSM-P001"),
        (b"\r\nGET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", "CSM-P001"),
        (b"GET http://a.example/ HTTP/1.1\r\n\r\n", "CSM-P001"),  # no Host
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "CSM-P010"),
        (b"PUT http://a.ex/ HTTP/1.1\r\nHost: a.ex\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
         "CSM-P001"),
        (b"POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nContent-Length: +1\r\n\r\n", "CSM-P001"),
        (b"POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
         "CSM-P001"),
        (b"POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "CSM-P001"),
        (b"POST http://a.example/ HTTP/1.0\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n", "CSM-P001"),
        (b"CONNECT a.example:443 HTTP/1.1\r\nContent-Length: 5\r\n\r\n", "CSM-P001"),
        (b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", "CSM-P001"),  # not a proxy request
        (b"GET //a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", "CSM-P001"),
        (b"GET http://a.example/#x HTTP/1.1\r\nHost: a.example\r\n\r\n", "CSM-P001"),
        (b"GET ftp://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", "CSM-P010"),  # 18
        (b"GET gopher://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", "CSM-P010"),
        (b"GET https://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", "CSM-P010"),
        (b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\n\r\n", "CSM-P010"),  # 13
        (b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nConnection: keep-alive, Upgrade\r\n\r\n", "CSM-P010"),
        (b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nHTTP2-Settings: x\r\n\r\n", "CSM-P010"),
        (b"TRACE http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", "CSM-P010"),
        (b"GET http://a.example/ HTTP/1.1\r\nHost: b.example\r\n\r\n", "CSM-P008"),  # 15
        (b"GET http://a.example/ HTTP/1.1\r\nHost: a.example:81\r\n\r\n", "CSM-P008"),
        (b"GET http://a.example/ HTTP/1.1\r\nHost: \r\n\r\n", "CSM-P008"),
        (b"CONNECT a.example:443 HTTP/1.1\r\nHost: b.example:443\r\n\r\n", "CSM-P008"),
        (b"CONNECT a.example HTTP/1.1\r\n\r\n", "CSM-P001"),
        (b"CONNECT a.example: HTTP/1.1\r\n\r\n", "CSM-P001"),
        (b"CONNECT a.example:0443 HTTP/1.1\r\n\r\n", "CSM-P001"),
        (b"CONNECT a.example:65536 HTTP/1.1\r\n\r\n", "CSM-P001"),
        (b"CONNECT user@a.example:443 HTTP/1.1\r\n\r\n", "CSM-P001"),
        (b"GET http://allowed@evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n", "CSM-P001"),
        (b"CONNECT a%2eexample:443 HTTP/1.1\r\n\r\n", "CSM-P001"),
        (b"CONNECT a..example:443 HTTP/1.1\r\n\r\n", "CSM-P001"),
        (b"CONNECT .example:443 HTTP/1.1\r\n\r\n", "CSM-P001"),
        (b"CONNECT a.example..:443 HTTP/1.1\r\n\r\n", "CSM-P001"),
        (b"CONNECT a_b.example:443 HTTP/1.1\r\n\r\n", "CSM-P001"),
        (b"CONNECT a.example\\@b:443 HTTP/1.1\r\n\r\n", "CSM-P001"),
        (b"CONNECT xn--a.example:443 HTTP/1.1\r\n\r\n", "CSM-P001"),
        (b"CONNECT a\xff.example:443 HTTP/1.1\r\n\r\n", "CSM-P001"),
    ],
)  # fmt: skip
def test_a_head_with_two_readings_or_none_is_refused(head: bytes, code: str) -> None:
    assert judge(head) == code


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "017700000001", "1.2.3.4.", "0", "0x",
     "169.254.169.254", "a.example.1", "1.2.3.0x4", "１２７.0.0.1", "127。0。0。1"],
)  # fmt: skip
def test_row_9_an_address_in_any_notation_is_refused(host: str) -> None:
    with pytest.raises(NotAHostError) as refused:
        host_name(host)
    assert refused.value.address
    assert judge(f"CONNECT {host}:443 HTTP/1.1\r\n\r\n".encode()) == "CSM-P004"


@pytest.mark.parametrize("target", ["[::1]:443", "[::ffff:127.0.0.1]:443", "::1:443", "[fe80::1%25eth0]:443"])
def test_row_9_ipv6_literals_are_refused(target: str) -> None:
    assert judge(f"CONNECT {target} HTTP/1.1\r\n\r\n".encode()) == "CSM-P004"


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("a.example", "a.example"),
        ("A.Example", "a.example"),
        ("a.example.", "a.example"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("ａ.example", "a.example"),
        ("r3---sn-x.example", "r3---sn-x.example"),
    ],
)
def test_row_20_spellings_of_a_name_have_one_canonical_form(text: str, canonical: str) -> None:
    assert host_name(text) == canonical
    asked = normalise(parse_head(f"CONNECT {text}:443 HTTP/1.1\r\n\r\n".encode()))
    assert asked.host == canonical


def test_a_plain_request_keeps_its_path_and_gets_one_host() -> None:
    head = (
        b"GET HTTP://A.example:8080/x?y=1 HTTP/1.1\r\nHost: a.EXAMPLE:8080\r\nProxy-Authorization: x\r\nTE: y\r\n\r\n"
    )
    parsed = parse_head(head)
    request = normalise(parsed)
    assert request == EgressRequest(scheme="http", host="a.example", port=8080, method="GET", path="/x?y=1")
    assert onward(parsed, request) == [(b"host", b"a.example:8080")]


def test_headers_that_a_connection_names_for_itself_do_not_go_on() -> None:
    head = b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nConnection: x-own, Content-Length\r\n"
    parsed = parse_head(head + b"X-Own: 1\r\nX-Kept: 2\r\nContent-Length: 0\r\n\r\n")
    headers = onward(parsed, normalise(parsed))
    # a length that were left out would make the body the next request
    assert headers == [(b"host", b"a.example"), (b"x-kept", b"2"), (b"content-length", b"0")]


def test_a_head_that_is_too_large_is_refused_before_it_ends() -> None:
    with pytest.raises(Refused) as refused:
        split_head(b"GET http://a.example/ HTTP/1.1\r\nX: " + b"a" * MAX_HEAD)
    assert refused.value.code == "CSM-P002"
    many = b"GET http://a.example/ HTTP/1.1\r\n" + b"X: y\r\n" * 101 + b"\r\n"
    assert judge(many) == "CSM-P002"


RULES = [
    rule("github.com"),
    rule("*.example.com"),
    rule("mirror.example.org", 80, "http", ["GET", "HEAD"]),
    rule("any.example.org", 8080, "http"),
]


@pytest.mark.parametrize(
    ("scheme", "host", "port", "method", "code"),
    [
        ("https", "github.com", 443, "CONNECT", None),
        ("https", "github.com", 22, "CONNECT", "CSM-P003"),  # 11, 12
        ("https", "github.com", 80, "CONNECT", "CSM-P003"),
        ("https", "github.com", 8443, "CONNECT", "CSM-P003"),
        ("http", "github.com", 443, "GET", "CSM-P003"),
        ("https", "notgithub.com", 443, "CONNECT", "CSM-P003"),  # 19
        ("https", "github.com.evil.com", 443, "CONNECT", "CSM-P003"),
        ("https", "a.example.com", 443, "CONNECT", None),
        ("https", "a.b.example.com", 443, "CONNECT", "CSM-P003"),
        ("https", "example.com", 443, "CONNECT", "CSM-P003"),
        ("https", "aexample.com", 443, "CONNECT", "CSM-P003"),
        ("http", "mirror.example.org", 80, "GET", None),
        ("http", "mirror.example.org", 80, "POST", "CSM-P009"),  # 24
        ("https", "mirror.example.org", 80, "CONNECT", "CSM-P003"),
        ("http", "any.example.org", 8080, "POST", None),
        ("https", "metadata.google.internal", 443, "CONNECT", "CSM-P003"),  # 26
    ],
)  # fmt: skip
def test_rules_only_allow(scheme: str, host: str, port: int, method: str, code: str | None) -> None:
    request = EgressRequest(scheme=scheme, host=host, port=port, method=method, path="")  # type: ignore[arg-type]
    decision = decide(request, RULES)
    assert decision.code == code
    assert (decision.verdict is Verdict.ALLOW) == (code is None) == (decision.rule is not None)
    empty = decide(request, [])  # 25
    assert (empty.verdict, empty.code) == (Verdict.DENY, "CSM-P003")


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("64:ff9b::808:808", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("168.63.129.16", False),
        ("100.64.0.1", False),
        ("100.100.100.200", False),
        ("224.0.0.1", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("0.0.0.0", False),
        ("::", False),
        ("::1", False),
        ("::127.0.0.1", False),
        ("::8.8.8.8", False),
        ("fe80::1", False),
        ("fe80::1%eth0", False),
        ("fd00:ec2::254", False),
        ("fec0::1", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:169.254.169.254", False),
        ("::ffff:8.8.8.8", True),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b:1::7f00:1", False),
        ("2002:7f00:1::", False),
        ("2002:808:808::", False),
        ("2001:0:808:808::", False),
        ("2001:db8::1", False),
        ("example.com", False),
        ("", False),
    ],
)  # fmt: skip
def test_row_7_only_public_addresses_are_reached(address: str, public: bool) -> None:
    assert is_public(address) is public


@pytest.mark.parametrize(
    ("address", "networks", "inside"),
    [
        ("10.20.1.1", ["10.20.0.0/16"], True),
        ("fd12::1", ["10.0.0.0/8", "fd12::/16"], True),
        ("10.21.1.1", ["10.20.0.0/16"], False),
        ("10.20.1.1", [], False),
        ("::ffff:10.20.1.1", ["10.20.0.0/16"], False),
        ("100.100.100.200", ["100.64.0.0/10"], False),
        ("fd00:ec2::254", ["fc00::/7"], False),
        ("127.0.0.1", ["10.0.0.0/8"], False),
        ("name", ["10.0.0.0/8"], False),
    ],
)
def test_row_26_a_private_network_that_a_rule_names_is_reached_and_no_metadata_in_it(
    address: str, networks: list[str], inside: bool
) -> None:
    assert is_inside(address, networks) is inside


@given(st.ip_addresses(v=4))
def test_an_embedded_address_is_judged_like_the_address_itself(address: ipaddress.IPv4Address) -> None:
    for prefix in ("::ffff:0:0", "64:ff9b::"):
        wrapped = ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) | int(address))
        assert is_public(str(wrapped)) == is_public(str(address))


@given(st.binary(max_size=300))
@settings(max_examples=300)
def test_any_bytes_are_a_request_or_a_refusal(data: bytes) -> None:
    assert isinstance(judge(data), EgressRequest | str)


HEADS = st.lists(
    st.sampled_from([b"GET ", b"CONNECT ", b"http://", b"a.example", b":443", b"/", b" HTTP/1.1", b"\r\n", b"\n", b"\r",
                     b"Host: ", b"a.example", b" ", b"\t", b"@", b"%", b"\x00", b"Content-Length: 1", b"\xc3\xbc"]),
    max_size=16,
).map(b"".join)  # fmt: skip


@given(HEADS)
@settings(max_examples=500)
def test_what_is_accepted_reads_the_same_after_it_was_written_anew(body: bytes) -> None:
    head = body + b"\r\n\r\n"
    end = len(head) if b"\r\n\r\n" not in body else body.index(b"\r\n\r\n") + 4
    try:
        parsed = parse_head(head[:end])
        request = normalise(parsed)
    except Refused:
        return
    assert request.host == request.host.lower()
    assert not request.host.endswith(".")
    if request.scheme == "http":
        lines = [f"{name.decode()}: {value.decode('latin-1')}" for name, value in onward(parsed, request)]
        text = "\r\n".join(
            [f"{request.method} http://{request.host}:{request.port}{request.path} HTTP/1.1", *lines, "", ""]
        )
        assert normalise(parse_head(text.encode("latin-1"))) == request


@given(st.text(max_size=40))
@settings(max_examples=500)
def test_the_canonical_form_of_a_name_is_its_own_canonical_form(text: str) -> None:
    try:
        name = host_name(text)
    except NotAHostError:
        return
    assert host_name(name) == name
    assert name.isascii()
    with pytest.raises(ValueError, match="does not appear"):
        ipaddress.ip_address(name)


@given(st.from_regex(r"[a-z0-9.-]{0,30}", fullmatch=True))
def test_a_wildcard_admits_exactly_one_label(prefix: str) -> None:
    admitted = matches(prefix + ".example.com", "*.example.com")
    assert admitted == ("." not in prefix and prefix != "")


def test_a_refusal_tells_what_is_allowed_in_one_shape() -> None:
    answer = refusal(Refused("CSM-P003", "no", host="evil\u202e.example"), RULES)
    assert code_of(answer) == "CSM-P003"
    assert b"github.com" in answer
    assert "\u202e".encode() not in answer
    assert b"\\\\u{202e}" in answer


@pytest.mark.parametrize(
    ("head", "path", "code"),
    [
        (b"GET /x?y=1 HTTP/1.1\r\nHost: a.example\r\n\r\n", "/x?y=1", None),
        (b"GET /x HTTP/1.1\r\nHost: A.example.:443\r\n\r\n", "/x", None),
        (b"GET https://a.example/x HTTP/1.1\r\nHost: a.example\r\n\r\n", "/x", None),
        (b"GET https://a.example HTTP/1.1\r\nHost: a.example\r\n\r\n", "/", None),
        (b"GET / HTTP/1.1\r\nHost: b.example\r\n\r\n", "", "CSM-P008"),  # 17
        (b"GET / HTTP/1.1\r\nHost: a.example:8443\r\n\r\n", "", "CSM-P008"),
        (b"GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n", "", "CSM-P001"),
        (b"GET / HTTP/1.1\r\n:authority: b.example\r\nHost: a.example\r\n\r\n", "", "CSM-P001"),  # 14
        (b"GET / HTTP/1.1\r\n\r\n", "", "CSM-P001"),
        (b"GET / HTTP/1.0\r\n\r\n", "", "CSM-P001"),
        (b"GET https://b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", "", "CSM-P008"),
        (b"GET https://a.example:8443/ HTTP/1.1\r\nHost: a.example\r\n\r\n", "", "CSM-P008"),
        (b"GET https://127.0.0.1/ HTTP/1.1\r\nHost: a.example\r\n\r\n", "", "CSM-P008"),
        (b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", "", "CSM-P008"),
        (b"GET //b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", "//b.example/", None),  # a path all the same
        (b"CONNECT b.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n", "", "CSM-P010"),
        (b"OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n", "", "CSM-P010"),
        (b"GET x HTTP/1.1\r\nHost: a.example\r\n\r\n", "", "CSM-P001"),
        (b"GET /x#y HTTP/1.1\r\nHost: a.example\r\n\r\n", "", "CSM-P001"),
        (b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "",
         "CSM-P010"),  # 13
        (b"GET / HTTP/1.1\r\nHost: a.example\r\nHTTP2-Settings: x\r\n\r\n", "", "CSM-P010"),
        (b"PRI * HTTP/2.0\r\n\r\n", "", "CSM-P010"),
        (b"GET / HTTP/1.1\r\nHost: a.example\r\n X: y\r\n\r\n", "", "CSM-P001"),
        (b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", "",
         "CSM-P001"),
    ],
)  # fmt: skip
def test_a_head_inside_a_tunnel_is_for_the_host_of_the_tunnel(head: bytes, path: str, code: str | None) -> None:
    if code is not None:
        with pytest.raises(Refused) as refused:
            normalise_inner(parse_head(head), "a.example", 443)
        assert refused.value.code == code
        return
    request = normalise_inner(parse_head(head), "a.example", 443)
    assert (request.scheme, request.host, request.port, request.path) == ("https", "a.example", 443, path)


@pytest.mark.parametrize(
    ("path", "admitted"),
    [
        ("/public", True),
        ("/public/", True),
        ("/public/a/b.txt", True),
        ("/public?x=1", True),
        ("/public?x=../../admin", True),  # a query is no path
        ("/public/a?/../admin", True),
        ("/public/a%20b", True),
        ("/public/...", True),
        ("/public/.hidden", True),
        ("/exact/", True),
        ("/exact/x", True),
        ("/exact", False),
        ("/", False),
        ("/publicity", False),
        ("/Public", False),
        ("/admin", False),
        ("/admin?/public/", False),
        ("/public/../admin", False),
        ("/public/./x", False),
        ("/public/..", False),
        ("/public/x/..", False),
        ("/public/..;/admin", False),
        ("/public/..;a=b/admin", False),
        ("/public/%2e%2e/admin", False),
        ("/public/.%2E/admin", False),
        ("/public/%2fadmin", False),
        ("/public%2Fadmin", False),
        ("/public/..%5cadmin", False),
        ("/public\\..\\admin", False),
        ("/public//admin", False),
        ("//public", False),
        ("/public/%252e%252e/admin", False),
        ("/public%3f/../../admin", False),
        ("/public%3fx", False),
        ("/public/%23", False),
        ("/public/%00", False),
        ("/public/%0d%0a", False),
        ("/public/%3b", False),
        ("/public/%", False),
        ("/public/%zz", False),
        ("/public/%2", False),
        ("/%70ublic", False),  # it might be served; but who writes a prefix means its spelling
    ],
)  # fmt: skip
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_row_24_a_rule_with_paths_admits_what_lies_below_them(path: str, admitted: bool, scheme: Any) -> None:
    port = 80 if scheme == "http" else 443
    limited = rule("a.example", port, scheme, ["GET"], ["/public", "/exact/"], inspect=scheme == "https")
    request = EgressRequest(scheme=scheme, host="a.example", port=port, method="GET", path=path)
    decision = decide(request, [limited])
    assert decision.code == (None if admitted else "CSM-P009")
    # control: without paths, it is the destination's business what it makes of them
    free = rule("a.example", port, scheme, ["GET"], inspect=scheme == "https")
    assert decide(request, [limited, free]).rule is (limited if admitted else free)


def test_where_a_rule_inspects_an_opaque_one_admits_nothing_that_can_be_seen() -> None:
    opaque, seen = rule("a.example"), rule("*.example", methods=["GET"], inspect=True)
    tunnel = EgressRequest(scheme="https", host="a.example", port=443, method="CONNECT", path="")
    decision = decide(tunnel, [opaque, seen])
    assert decision.rule is seen
    post = EgressRequest(scheme="https", host="a.example", port=443, method="POST", path="/")
    assert decide(post, [opaque, seen]).code == "CSM-P009"
    assert decide(post, [opaque]).code == "CSM-P009"
