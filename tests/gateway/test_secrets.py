"""The secret scan: every guise of a run's secret is found, honest rows pass, and no verdict contains the value."""

from __future__ import annotations

import base64
import gzip
import html
import json
import urllib.parse
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.customs.checks.base import Candidate
from gateway.customs.checks.secrets import Secrets
from gateway.customs.scan.layers import MAX_INFLATE
from gateway.customs.scan.redact import redact
from gateway.customs.scan.rules import load
from gateway.customs.scan.scanner import BUDGET_RULE, Scanner
from gateway.customs.scan.values import needles
from policies.canonical import canonical
from policies.errors import CasemateError

SECRET = "Zq7-canary/Kp9+vault_31x"
RAW = SECRET.encode()
SCANNER = Scanner(load(), needles({"hub": SECRET}))


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def nested(times: int, secret: str = SECRET) -> str:
    text = secret
    for _ in range(times):
        text = b64(text.encode())
    return text


def guises_of(secret: str) -> dict[str, Any]:
    """Return the ways to write a secret down."""
    raw = secret.encode()
    return {
        "plain": secret,
        "inside": f"the key is {secret}, keep it",
        "lower case": secret.lower(),
        "upper case": secret.upper(),
        "reversed": secret[::-1],
        "base64": b64(raw),
        "base64 without padding": b64(raw).rstrip("="),
        "base64 after one byte": b64(b"x" + raw),
        "base64 after two bytes": b64(b"xy" + raw),
        "base64 inside binary": b64(bytes(range(200, 255)) + raw + bytes(range(128, 180))),
        "base64 glued to junk": "junk" + b64(raw) + "junk",
        "base64 shifted by junk": "j" + b64(raw),
        "base64 url safe": base64.urlsafe_b64encode(b"\xfb\xff" + raw).decode(),
        "base64 wrapped in lines": "\n".join(b64(raw * 9)[i : i + 76] for i in range(0, 288, 76)),
        "base64 of reversed": b64(secret[::-1].encode()),
        "base64 of utf-16": b64(secret.encode("utf-16-le")),
        "base32": base64.b32encode(raw).decode(),
        "hex": raw.hex(),
        "HEX": raw.hex().upper(),
        "hex with colons": raw.hex(":"),
        "hex with escapes": "".join(f"\\x{byte:02x}" for byte in raw),
        "hex in groups": raw.hex(" ", 2),
        "hex in groups, of utf-16": secret.encode("utf-16-le").hex(":", 4),
        "hex in groups, packed": gzip.compress(raw).hex(" ", 2),
        "hex in groups, packed otherwise": zlib.compress(raw).hex("-", 8),
        "hex in groups, with zero width": "\u200b".join(secret).encode().hex(" ", 3),
        "hex as a list": ", ".join(f"0x{byte:02x}" for byte in raw),
        "unicode escapes": "".join(f"\\u{ord(char):04x}" for char in secret),
        "octal escapes": "".join(f"\\{byte:03o}" for byte in raw),
        "percent": urllib.parse.quote(secret, safe=""),
        "percent, every byte": "".join(f"%{byte:02X}" for byte in raw),
        "html entities": "".join(f"&#{ord(char)};" for char in secret),
        "html escaped": html.escape(secret),
        "bytes as numbers": list(raw),
        "gzip in base64": b64(gzip.compress(raw)),
        "gzip in base64 after junk": "data:" + "x" + b64(gzip.compress(raw)),
        "gzip in hex": gzip.compress(raw).hex(),
        "zlib in base64": b64(zlib.compress(raw)),
        "gzip twice": b64(gzip.compress(b64(gzip.compress(raw)).encode())),
        "base64 twice": nested(2, secret),
        "base64 three times": nested(3, secret),
        "hex in base64": b64(raw.hex().encode()),
        "json in json": json.dumps(json.dumps({"k": secret})),
        "spaced": " ".join(secret),
        "with zero width": "\u200b".join(secret),
        "with soft hyphens": "\u00ad".join(secret),
        "with line breaks": "\n".join(secret[i : i + 5] for i in range(0, len(secret), 5)),
        "full width": "".join(chr(ord(char) + 0xFEE0) if char.isascii() else char for char in secret),
        "lookalikes": secret.replace("a", "а").replace("p", "р").replace("x", "х"),
        "in a key": {secret: 1},
        "encoded in a key": {b64(raw): 1},
        "deep": [[[{"a": [{"b": secret}]}]]],
        "over two fields": {"a": secret[:9], "b": secret[9:]},
        "over a list": [secret[i : i + 3] for i in range(0, len(secret), 3)],
        "letter by letter": list(secret),
        "over keys": {secret[:12]: 1, secret[12:]: 2},
        "over key and value": {secret[:12]: secret[12:]},
        "in pieces, others between": {
            "a": secret[:8],
            "b": "honest words",
            "c": secret[8:16],
            "d": "more",
            "e": secret[16:],
        },
        "in pieces, out of order": [secret[16:], "and", secret[:8], "then", secret[8:16]],
        "gzip over two fields": {"a": b64(gzip.compress(raw))[:20], "b": b64(gzip.compress(raw))[20:]},
    }


GUISES = guises_of(SECRET)
FOREIGN = "Ключ-жёлтый/Lösung+密码ß9"
FOREIGN_GUISES = guises_of(FOREIGN)


@pytest.mark.parametrize("guise", FOREIGN_GUISES.values(), ids=FOREIGN_GUISES)
def test_a_secret_of_other_letters_is_found(guise: Any) -> None:
    scanner = Scanner(load(), needles({"word": FOREIGN}))
    assert {finding.rule for finding in scanner.findings({"field": guise})} == {"run-secret:word"}
    assert scanner.findings({"field": "Ключ от двери, 密码 und Lösung"}) == []


@pytest.mark.parametrize("guise", GUISES.values(), ids=GUISES)
def test_a_secret_of_the_run_is_found(guise: Any) -> None:
    record = {"field": guise, "prompt": "two plus two"}
    assert "run-secret:hub" in {finding.rule for finding in SCANNER.findings(record)}


@pytest.mark.parametrize("guise", GUISES.values(), ids=GUISES)
def test_neither_verdict_nor_quarantine_contains_it(guise: Any) -> None:
    record = {"field": guise, "prompt": "two plus two"}
    reasons = list(Secrets(SCANNER, b"key of the run")(Candidate(record=record, size=1)))
    kept = redact(record, SCANNER.findings(record), SCANNER)
    told = [[reason.pointer, reason.excerpt] for reason in reasons]
    assert reasons
    assert SCANNER.findings(told) == []
    assert SCANNER.findings(kept) == []
    assert SECRET not in canonical([told, kept]).decode()


HONEST: dict[str, Any] = {
    "prose": "The quick brown fox jumps over the lazy dog, and then the vault closes at nine.",
    "code": "def main(argv: list[str]) -> int:\n    return os.path.join('/usr/lib/python3/dist-packages', argv[0])\n",
    "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "git": "commit 3d94737a1f0c1c149afbf4c8996fb92427ae41e4 (HEAD -> main, origin/main)",
    "uuid": "123e4567-e89b-12d3-a456-426614174000",
    "cyrillic": "Съешь же ещё этих мягких французских булок, да выпей чаю",
    "chinese": "敏捷的棕色狐狸跳过了懒狗",
    "emoji": "👩‍👩‍👧‍👦 семья",
    "base64 image": b64(bytes(range(256)) * 8),
    "base64 text": b64(b"hello world, this is an honest sentence"),
    "link": "https://example.com/a/b?q=python%20type%20hints&lang=en#top",
    "link with a port": "http://localhost:8080/health",
    "mail": "someone@example.com",
    "numbers": [1, 2.5, -3e10, 1234567890123456],
    "placeholder": "export OPENAI_API_KEY=sk-... # put your key here",
    "password prompt": "password: ********",
    "template": "postgres://user:${PASSWORD}@db/app",
    "jwt talk": "A JWT looks like eyJhbGciOi... with three parts",
    "integrity": "sha512-" + b64(bytes(range(64))),
    "long": "lorem ipsum dolor sit amet consectetur " * 2000,
    "keys": {"getUserAuthenticationTokenFromRequestHeaders": "camelCase", "SOME_CONSTANT_NAME_HERE": "VALUE"},
    "percent": "100% of 50%25 is %zz",
    "html": "<p>a &amp; b &lt; c</p>",
    "hexdump": "00000000: 7f45 4c46 0201 0100 0000 0000 0000 0000",
    "mac": "00:1b:44:11:3a:b7",
    "private key talk": "never commit a private key (-----BEGIN CERTIFICATE----- is fine)",
}


@pytest.mark.parametrize("value", HONEST.values(), ids=HONEST)
def test_honest_rows_pass(value: Any) -> None:
    assert SCANNER.findings({"field": value, "prompt": "a question", "n": 3}) == []


@given(
    st.dictionaries(st.text(max_size=12), st.text(max_size=60) | st.integers() | st.floats(allow_nan=False), max_size=6)
)
def test_any_text_is_scanned_to_the_end(record: dict[str, Any]) -> None:
    assert {finding.rule for finding in SCANNER.findings(record)} <= {BUDGET_RULE}


@given(st.text(max_size=40), st.text(max_size=40))
def test_it_is_found_beside_any_text(before: str, after: str) -> None:
    assert SCANNER.findings({"field": before + SECRET + after})


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(nested(8), id="too many layers"),
        pytest.param(b64(gzip.compress(b"0" * (MAX_INFLATE + 1))), id="bomb"),
        pytest.param(b64(gzip.compress(gzip.compress(b"a" * 5 * MAX_INFLATE))), id="bomb in a box"),
        pytest.param([b64(gzip.compress(b"a b " * (MAX_INFLATE // 4)))] * 9, id="many near-bombs"),
        pytest.param([b64(b"some honest words here")] * 5000, id="many layers"),
    ],
)
def test_what_cannot_be_unwrapped_within_the_budget_is_rejected(value: Any) -> None:
    assert BUDGET_RULE in {finding.rule for finding in SCANNER.findings({"field": value})}


def test_a_composite_secret_is_found_by_its_secret_part() -> None:
    key = "-----BEGIN OPENSSH PRIVATE KEY-----\n" + "\n".join(
        b64(bytes((i * 7 + j * 3) % 251 for j in range(48))) for i in range(4)
    )
    document = json.dumps({"type": "service_account", "private_key_secret": "q" * 20 + "w8e7r6t5y4u3i2o1"})
    scanner = Scanner(load(), needles({"db": "postgresql://app:h0rse-battery@db/app", "ssh": key, "json": document}))
    for text in ("h0rse-battery", key.splitlines()[2], "q" * 20 + "w8e7r6t5y4u3i2o1"):
        assert scanner.findings({"x": f"see {text}."}), text
    assert scanner.findings({"x": "postgresql and app and db"}) == []


def test_a_long_token_is_found_by_any_long_part() -> None:
    token = "mnbvcxzlkjhgfdsapoiuytrewq0192837465MNBVCXZ"
    scanner = Scanner(load(), needles({"t": token}))
    for start in range(len(token) - 31):
        assert scanner.findings({"x": token[start : start + 31]})
    assert scanner.findings({"x": token[:10]}) == []


def test_short_secrets_are_whole_tokens_and_empty_ones_are_refused() -> None:
    scanner = Scanner(load(), needles({"pin": "4711"}))
    assert scanner.findings({"x": "the pin is 4711."})
    assert scanner.findings({"x": 4711})
    assert scanner.findings({"4711": 1})
    assert scanner.findings({"x": "order 147113"}) == []
    for empty in ("", "  \n"):
        with pytest.raises(CasemateError) as refused:
            needles({"none": empty})
        assert refused.value.code == "CSM-R009"


def test_a_secret_of_punctuation_is_found_as_it_is() -> None:
    scanner = Scanner(load(), needles({"odd": "!§$%&/()=?"}))
    assert scanner.findings({"x": "is !§$%&/()=? it"})
    assert scanner.findings({"x": "is it"}) == []


def test_marks_are_equal_for_equal_secrets_and_differ_between_runs() -> None:
    def mark(key: bytes) -> str:
        candidate = Candidate(record={"a": SECRET}, size=1)
        return next(iter(Secrets(SCANNER, key)(candidate))).excerpt

    assert mark(b"one") == mark(b"one") != mark(b"two")
