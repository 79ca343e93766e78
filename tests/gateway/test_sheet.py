"""The sheet: what it reads is what the strict parser reads, and all that is made of it is what the older way makes."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.customs.examine import keys_as_written
from gateway.customs.sheet import down, letters, lines, sheet
from gateway.customs.sheet.sheet import Reader
from gateway.customs.sieve import decode
from gateway.customs.sieve.decode import MAX_RECORD
from gateway.schema import Schema
from tests.gateway import sheets
from tests.gateway.sheets import READER, SCHEMA, closed, read, reader_of, written
from tests.gateway.sieves import joined
from tests.gateway.test_decode import SECOND_READINGS

NUMBER: dict[str, Any] = {"type": "number"}
HONEST: list[dict[str, Any]] = [
    {"text": "two plus two", "n": 4, "a": 0.5, "yes": True, "b": None, "word": "good"},
    {"word": "ü", "b": "Съешь же ещё этих мягких булок", "a": "🏴 \ud7ff\ue000\uffff", "n": 2**53 - 1},
    {"a": 3.2e-07, "b": -1234.5678, "yes": None},
    {"a": 0.1 + 0.2, "b": 1e-5, "text": 'tab\t line\n "quoted" back\\slash / \b\f\r \x7f'},
    {"a": 0.0, "b": -0.0, "n": 0},
    {"a": 100000.0, "b": 123456789012345.0, "n": -(2**53) + 1},
    {"word": "\\\b\f\n\r\t\"/\x7f", "a": False, "b": ""},
    {},
]  # fmt: skip


@pytest.mark.parametrize("ensure_ascii", [True, False])
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_honest_rows_are_read(ensure_ascii: bool, separators: tuple[str, str]) -> None:
    source = random.Random(3)
    rows = [{"a": source.random(), "b": source.gauss(0, 1e3), "n": source.randrange(10**9)} for _ in range(200)]
    rows = [dict(source.sample(list(row.items()), len(row))) for row in [*HONEST, *rows]]
    how = {"ensure_ascii": ensure_ascii, "separators": separators}
    for block in (written(rows, **how), *(written([row], **how) for row in HONEST)):
        assert read(block) is not None, block


def test_a_number_is_read_in_whatever_way_it_is_written() -> None:
    numbers = (
        b"0.00005 -0.00005 0.00001 0.0009 0.001 0.00012 1.50 -0.00 1e3 1E-7 5e-324 0.1e1 100000000000000.5 0e0".split()
    )
    numbers += b"9007199254740991.4 123456789012345.67 0.30000000000000004 0.1000000000000000055511151231257827".split()
    for number in numbers:
        for block in (b'{"a":' + number + b"}", b'{"text":"and much that gives it room","b":' + number + b"}"):
            assert read(block) is not None, number


@settings(max_examples=300)
@given(st.lists(sheets.lines(), min_size=1, max_size=3).map(joined))
def test_whatever_is_read_is_read_as_by_the_strict_parser(block: bytes) -> None:
    read(block)


@settings(max_examples=300)
@given(st.lists(sheets.lines(odd=True), min_size=1, max_size=2).map(joined))
def test_odd_lines_are_read_as_by_the_strict_parser_or_not(block: bytes) -> None:
    read(block)


def test_lines_that_were_changed_anywhere_are_read_as_by_the_strict_parser_or_not() -> None:
    source = random.Random(5)
    pieces = [
        b'"',
        b"\\",
        b"\\u",
        b"\\ud83d",
        b"\\u0000",
        b"e5",
        b".",
        b"-",
        b"0",
        b"9" * 8,
        b"{}",
        b"}\n{",
        b",",
        b":",
    ]
    pieces += [b" ", b"\r", b"\n", b"\xc3", b"\xa9", b"\xed\xa0\x80", b"\xc0\x80", b"\x00", b"\x1e", b"null", b'"a":1,']
    seen = []
    for _ in range(6000):
        row = source.choice(HONEST)
        line = bytearray(written([row], ensure_ascii=source.random() < 0.5))
        for _ in range(source.randint(1, 3)):
            at = source.randrange(len(line) + 1)
            line[at : at + source.choice([0, 0, 1, 4])] = source.choice([*pieces, b"", bytes([source.randrange(256)])])
        seen.append(read(bytes(line)) is not None)
    assert 100 < sum(seen) < 5900


@pytest.mark.parametrize("line", SECOND_READINGS, ids=lambda line: repr(line[:30]))
def test_a_line_with_a_second_reading_ends_the_reading(line: bytes) -> None:
    reader = reader_of(closed({"a": {"type": sheets.ANY}, "b": {"type": sheets.ANY}}))
    good = [b'{"a":1,"b":"two"}', b'{"b": "x\\"y\\":z", "a": 1.0}', b'{"a":"\\\\"}']
    assert reader.read(joined(good)) is not None
    assert reader.read(line) is None
    assert reader.read(joined([*good, line, *good])) is None


def test_every_letter_is_searched_as_in_the_older_way_however_it_is_written() -> None:
    codes = [*range(0x20, 0x3400, 3), *range(0xA000, 0xAC00, 7), *range(0xF900, 0x20000, 5), *range(0xE0000, 0xE0200)]
    for ensure_ascii in (True, False):
        assert read(written([{"text": f"a{chr(code)}b"} for code in codes], ensure_ascii=ensure_ascii)) is not None


def test_a_text_is_read_only_if_it_is_utf_8() -> None:
    after = [0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xFF]
    tails = [b"", b"A", b"\x80", b"\xbf", b"\x80\xbf", b"\x80A", b"\xc0\x80", b"\x80\x80\x80"]
    for text in (bytes([one, two]) + tail for one in range(0x80, 0x100) for two in after for tail in tails):
        assert (READER.read(b'{"text":"' + text + b'"}') is not None) == (
            decode.strict_record(b'{"a":"' + text + b'"}') is not None
        )


@pytest.mark.parametrize("mark", ["\0", "\x1e", "\x01", "\x1f", "\x0b"])
def test_the_marks_of_planes_are_in_no_text(mark: str) -> None:
    for ensure_ascii in (True, False):
        assert READER.read(written([{"text": f"a{mark}b"}], ensure_ascii=ensure_ascii)) is None
    assert READER.read(b'{"text":"a' + mark.encode() + b'b"}') is None


def test_true_false_and_null_are_nothing_in_a_plane_and_part_no_words() -> None:
    found = read(written([{"text": "Say ", "yes": True, "a": None, "b": "Cheese\u200b"}]))
    assert found is not None
    assert bytes(found.planes.text).replace(b"\0", b"") == "Say Cheese\u200b\x1e".encode()
    assert found.planes.tight == found.letters == b"saycheese\x1e"
    assert found.plane() == b"say\x1e" + b"\x1e" * 3 + b"cheese\x1e" + b"\x1e"


_cells = st.text(max_size=4) | st.integers(-(2**53) + 1, 2**53 - 1) | st.booleans() | st.none()


@given(st.lists(st.fixed_dictionaries({"b": _cells, "a": _cells, "é": st.just(1)}, optional={"c": _cells}), min_size=1))
def test_several_fields_are_keyed_as_in_the_older_way(rows: list[dict[str, Any]]) -> None:
    rows = [{name: value for name, value in row.items() if name != "é"} for row in rows]
    reader = reader_of(closed({name: {"type": sheets.ANY} for name in "abc"}))
    found = reader.read(written(rows, ensure_ascii=False))
    if found is not None:
        for names in (["a"], ["b"], ["a", "b"], ["b", "a"]):
            assert found.lines_of(names) == keys_as_written(rows, names)
        three = [row for row in rows if "c" in row]
        assert found.lines_of(["c", "a", "b"]) == (keys_as_written(three, ["c", "a", "b"]) if three else b"")


def test_a_chunk_that_is_too_large_is_read_in_another_way() -> None:
    row = b'{"text":"' + b"x" * 290 + b'"}'
    rows = joined([row] * (MAX_RECORD // (len(row) + 1)))
    whole = rows + b" " * (MAX_RECORD - len(rows))
    found = READER.read(whole)
    assert found is not None
    assert found.block == (row + b"\n") * len(found.records)
    assert READER.read(whole + b" ") is None


def test_a_line_of_nothing_is_not_read_even_as_the_first() -> None:
    assert reader_of(SCHEMA).read(b"") is None
    assert reader_of(SCHEMA).read(b"\n") is None


def test_a_chunk_that_grows_is_read_or_not() -> None:
    for fields in (1, 3, 40, 64):
        names = [f"{number:c}" for number in range(97, 97 + 26)] + [f"n{number}" for number in range(64)]
        for extra in ("", "long", "longer still"):
            schema = closed({name + extra: NUMBER for name in names[:fields]})
            reader, fits, seen = reader_of(schema), Schema(schema, "test"), []
            for there in range(min(fields, 14) + 1):
                line = b"{" + b",".join(b'"%s":1E15' % (name + extra).encode() for name in names[:there]) + b"}"
                seen += [
                    read(joined([line] * count), Reader(reader._form), fits) is not None for count in (1, 2, 9, 200)
                ]
            assert any(seen), "the control"


def test_a_reading_that_ended_early_leaves_nothing_to_the_next() -> None:
    reader = reader_of(closed({**{letter * 7: NUMBER for letter in "abc"}, "d": {"type": "string"}}))
    grows = b'{"aaaaaaa":1E15,"bbbbbbb":1E15,"ccccccc":1E15,"d":""}'
    good = joined([b'{"aaaaaaa":2}'] * 2 + [b'{"d":"hello"}'] * 300)
    ended = 0
    for count in range(1, 60):
        ended += reader.read(joined([grows] * count)) is None
        found = reader.read(good)
        assert found is not None
        assert found.block == good + b"\n"
        reader = Reader(reader._form)
    assert ended > 5, "the control"


def test_lines_and_records_stay_when_more_is_read() -> None:
    def told(found: sheet.Sheet | None) -> Sequence[Any]:
        assert found is not None
        return found.block, [found.records[n] for n in reversed(found.records)]

    def kept(found: sheet.Sheet) -> Sequence[Any]:
        return found.block, list(found.records.values())[::-1]

    blocks = [written(HONEST), written([{"text": "short"}]), written(HONEST * 50), b"{}", written(HONEST[::-1])]
    reader = reader_of(SCHEMA)
    found = [read(block, reader) for block in blocks]
    assert [kept(one) for one in found if one is not None] == [told(reader_of(SCHEMA).read(block)) for block in blocks]


def plain(module: ModuleType) -> ModuleType:
    """Return a module as it is when it was not compiled."""
    path = Path(sheet.__file__).with_name(module.__name__.rpartition(".")[2] + ".py")
    name = f"plain_{path.stem}"
    spec = spec_from_loader(name, SourceFileLoader(name, str(path)))
    assert spec is not None
    made = module_from_spec(spec)
    assert spec.loader is not None
    spec.loader.exec_module(made)
    assert made.__file__ == str(path)
    return made


def test_an_image_holds_it_compiled() -> None:
    if not Path("/opt/app").is_dir():
        pytest.skip("this is not an image")
    assert {Path(part.__file__).suffix for part in (lines, letters, down)} == {".so"}


def test_what_was_not_compiled_reads_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    if lines.__file__.endswith(".py"):
        pytest.skip("nothing is compiled here: the other tests are of the plain source")
    source = random.Random(8)
    one = written(HONEST)
    blocks = [one, *(written([row], ensure_ascii=False) for row in HONEST), b'{"a":1E15}', b'{"a":"\\ud83d\\ude00"}']
    blocks += [
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"\xf4\x90\x80\x80"}',
        b'{"a":"\xc0\xae"}',
        b'{"a":"\xe2\x82"}',
        b'{"a":',
        b"",
    ]
    blocks += [b'{"a":1e%d}' % n for n in range(-330, 320, 37)] + [
        b'{"a":"\\u%04x"}' % n for n in range(0, 65536, 4095)
    ]
    for _ in range(40):
        at = source.randrange(len(one))
        blocks.append(one[:at] + bytes([source.randrange(256)]) + one[at + 1 :])
    compiled = [_all_of(reader_of(SCHEMA), block) for block in blocks]
    monkeypatch.setattr(sheet, "lines", plain(lines))
    monkeypatch.setattr(sheet, "letters", plain(letters))
    monkeypatch.setattr(sheet, "down", plain(down))
    assert [_all_of(reader_of(SCHEMA), block) for block in blocks] == compiled
    assert sum(part is None for part in compiled) < len(blocks) - 20


def _all_of(reader: Reader, block: bytes) -> Any:
    found = reader.read(block)
    if found is None:
        return None
    columns = [(found.lines_of([name]), list(found.measured(name, "length", set()))) for name in sheets.NAMES]
    places = found.planes.places.tolist()
    return (
        found.block,
        found.planes,
        places,
        found.letters,
        bytes(found.plane()),
        [(found.first(name, 9), found.last(name, 9)) for name in sheets.NAMES],
        columns,
        json.dumps(list(found.records.values())),
    )


def test_records_are_those_of_the_lines_in_any_order() -> None:
    found = READER.read(written(HONEST))
    assert found is not None
    assert [found.records[number] for number in reversed(found.records)] == HONEST[::-1]
    assert len(found.records) == len(found.forms) == len(HONEST)
    assert b"\n".join([*found.forms, b""]) == decode.read(written(HONEST)).block


_deceiver = st.sampled_from(["\u200b", "\u202e", "\ufe0f", "\ufe0f\ufe0f", "\U000e0041", "\U000f0001", "\x85", "\xad"])
_letter = st.sampled_from(["a", "Z", "é", "中", "\xb5", "ա", "а", "Ж", "α", "Ω", " ", "1", "\n", "\\"])
_texts = st.lists(st.one_of(_letter, _letter, _letter, _deceiver), max_size=5).map("".join)


@given(
    texts=st.lists(st.tuples(st.sampled_from(["", "x" * 31, "word " * 9]), _texts), max_size=6), escaped=st.booleans()
)
def test_what_could_deceive_is_noticed_while_it_is_read(texts: list[tuple[str, str]], escaped: bool) -> None:
    rows = [{"text": f"{before}{text}"} for before, text in texts] + [
        {"text": f"{text}{after}"} for after, text in texts
    ]
    read(written(rows, ensure_ascii=escaped))


@pytest.mark.parametrize(
    ("text", "deceives"),
    [
        ("The harbour, 12 boats.", False), ("Старая гавань", False), ("老港口 and harbour", False), ("Ελλάδα", False),
        ("naïve Übung", False), ("слово word", False), ("wоrd", True), ("ж" + "x" * 40, True), ("x" * 32 + "ж", True),
        ("x" * 33 + "ж", True), ("中ж", True), ("жé", True), ("a\u200bb", True), ("\u202eabc", True),
    ],
)  # fmt: skip
@pytest.mark.parametrize("escaped", [True, False])
def test_honest_text_of_any_script_is_not_searched_for_what_deceives(text: str, deceives: bool, escaped: bool) -> None:
    found = read(written([{"text": "before"}, {"text": text}, {"text": "after"}], ensure_ascii=escaped))
    assert found is not None
    assert found.planes.deceives == deceives


def test_letters_of_two_texts_are_not_side_by_side() -> None:
    found = read(
        written([{"a": "word", "text": "слово"}, {"a": "слово", "text": "word"}, {"a": "слово"}, {"a": "word"}])
    )
    assert found is not None
    assert not found.planes.deceives
