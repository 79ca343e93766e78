"""`python -m gateway customs` as a process: from buffers that serve wrote to files, verdicts and a declaration."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.customs.chain import rows
from gateway.customs.intake import CHUNK_ROWS
from policies.canonical import digest
from policies.errors import CasemateError
from policies.slices import seal
from policies.vocabulary import Component
from policies.writes import GENESIS, Judgement
from tests.gateway.judged import SECRET, chained, judge, one
from tests.gateway.kit import Serving, birth, make_output, make_plan, start

Start = Callable[..., Serving]
MIXED: list[dict[str, Any]] = [
    {"prompt": "one", "score": 1.5, "tags": ["a"]},
    {"prompt": "two", "score": 99},
    {"prompt": "one", "n": 7},
    {"prompt": f"leak {SECRET}"},
    {"prompt": base64.b64encode(f"xx{SECRET}".encode()).decode()},
    {"prompt": "three", "meta": {SECRET: {"deep": 1}}},
    {"prompt": "four", "n": 4, "meta": {"k": [1, None]}},
]


def test_row_by_row(tmp_path: Path) -> None:
    judged = one(tmp_path, MIXED)
    assert judged.code == 0, judged.error
    verdicts = [msgspec.convert(line, Judgement) for line in judged.lines("verdicts.jsonl")]
    found = [[reason.code for reason in verdict.reasons[:1]] for verdict in verdicts]
    assert found == [[], ["CSM-W003"], ["CSM-W004"], ["CSM-W005"], ["CSM-W005"], ["CSM-W005"], []]
    assert judged.lines("samples.jsonl") == [MIXED[0], MIXED[6]]
    data = (judged.out / "samples.jsonl").read_bytes()
    declaration = judged.declaration()
    assert (declaration.accepted, declaration.rejected) == ({"samples": 2}, {"samples": 5})
    written = declaration.written[0]
    assert (written.file, written.path, written.rows) == ("samples.jsonl", "out/samples.jsonl", 2)
    assert (written.digest, written.size) == (digest(data), len(data))
    assert declaration.plan == seal(make_plan(make_output())).plan
    manifest = json.loads((judged.out / "samples.manifest.json").read_bytes())
    assert (manifest["sha256"], manifest["rows"], manifest["plan"]) == (digest(data), 2, declaration.plan)
    kept = judged.lines("quarantine.jsonl")
    assert [line["id"] for line in kept] == ["draft-1", "draft-2", "draft-3", "draft-4", "draft-5"]
    assert kept[2]["record"] == {"prompt": f"[redacted: run-secret:hub, {len('leak ' + SECRET)} characters]"}
    assert [event["verdict"] for event in judged.events] == ["reject"] * 5 + ["accept"]
    counts = judged.events[-1]["attrs"]
    assert (counts["casemate.write.accepted"], counts["casemate.write.rejected"]) == (2, 5)


def test_the_secret_is_in_nothing_that_customs_wrote(tmp_path: Path) -> None:
    judged = one(tmp_path, MIXED)
    everything = b"".join(path.read_bytes() for path in judged.out.iterdir())
    everything += json.dumps(judged.events).encode() + judged.error.encode()
    for guise in (SECRET, SECRET[::-1], base64.b64encode(f"xx{SECRET}".encode()).decode(), SECRET.encode().hex()):
        assert guise.encode() not in everything


def test_a_batch_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    bad = one(tmp_path / "bad", [MIXED[0], MIXED[1]], atomic="batch")
    codes = [line["reasons"][0]["code"] for line in bad.lines("verdicts.jsonl")]
    assert (bad.code, codes) == (0, ["CSM-W008", "CSM-W003"])
    assert bad.declaration().written == []
    assert sorted(path.name for path in bad.out.iterdir()) == ["declaration.json", "quarantine.jsonl", "verdicts.jsonl"]
    assert bad.events[-1]["verdict"] == "reject"
    good = one(tmp_path / "good", [MIXED[0], MIXED[6]], atomic="batch")
    assert good.declaration().accepted == {"samples": 2}


def test_a_secret_spread_over_rows_takes_all_of_them_along(tmp_path: Path) -> None:
    pieces = [SECRET[:7], SECRET[7:13], SECRET[13:]]
    records: list[dict[str, Any]] = [
        {"prompt": "before"},
        *({"prompt": piece, "n": 1} for piece in pieces),
        {"prompt": "after"},
    ]
    judged = one(tmp_path, records)
    verdicts = [[reason["code"] for reason in line["reasons"]] for line in judged.lines("verdicts.jsonl")]
    assert verdicts == [[], ["CSM-W005"], ["CSM-W005"], ["CSM-W005"], []]
    assert judged.lines("samples.jsonl") == [records[0], records[4]]
    written = b"".join(path.read_bytes() for path in judged.out.iterdir())
    assert not [piece for piece in pieces if piece.encode() in written]


def test_a_part_in_a_row_that_is_rejected_anyway_is_not_kept(tmp_path: Path) -> None:
    records: list[dict[str, Any]] = [{"prompt": SECRET[:12], "score": 99}, {"prompt": SECRET[12:]}]
    judged = one(tmp_path, records)
    codes = [[reason["code"] for reason in line["reasons"]] for line in judged.lines("verdicts.jsonl")]
    assert codes == [["CSM-W003", "CSM-W005"], ["CSM-W005"]]
    assert SECRET[:12].encode() not in (judged.out / "quarantine.jsonl").read_bytes()


def test_letters_of_a_secret_in_a_column(tmp_path: Path) -> None:
    judged = one(tmp_path, [{"prompt": letter, "n": n} for n, letter in enumerate(SECRET)], unique=[], atomic="batch")
    assert judged.declaration().accepted == {"samples": 0}


def test_parquet_has_types_and_the_same_bytes_for_the_same_rows(tmp_path: Path) -> None:
    records = [MIXED[0], MIXED[6], {"prompt": "last", "score": 3, "n": 2**53 - 1, "tags": []}]
    first, second = (one(tmp_path / name, records, format="parquet") for name in ("a", "b"))
    data = (first.out / "samples.parquet").read_bytes()
    assert data == (second.out / "samples.parquet").read_bytes()
    table = pq.read_table(first.out / "samples.parquet")
    assert {field.name: str(field.type) for field in table.schema} == {
        "meta": "string",
        "n": "int64",
        "prompt": "string",
        "score": "double",
        "tags": "list<element: string>",
    }
    assert table.to_pylist() == [
        {"prompt": "one", "score": 1.5, "tags": ["a"], "n": None, "meta": None},
        {"prompt": "four", "score": None, "tags": None, "n": 4, "meta": '{"k":[1,null]}'},
        {"prompt": "last", "score": 3.0, "tags": [], "n": 2**53 - 1, "meta": None},
    ]
    assert first.declaration().written[0].digest == digest(data)


def test_parquet_keeps_what_the_schema_does_not_name(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"prompt": {"type": "string"}}}
    records: list[dict[str, Any]] = [{"prompt": "a"}, {"prompt": "b", "more": [1], "z": None}]
    judged = one(tmp_path, records, format="parquet", schema=schema, bounds={})
    table = pq.read_table(judged.out / "samples.parquet")
    assert table.to_pylist() == [{"prompt": "a", "_extra": None}, {"prompt": "b", "_extra": '{"more":[1],"z":null}'}]


def test_outputs_named_like_the_files_of_customs(tmp_path: Path) -> None:
    data, last = chained([("verdicts", {"prompt": "x"}), ("quarantine", {"prompt": "y"})])
    plan = make_plan(make_output("verdicts"), make_output("quarantine"))
    judged = judge(tmp_path, plan, {"draft": data}, {"draft": last})
    assert [entry.file for entry in judged.declaration().written] == ["verdicts.rows.jsonl", "quarantine.rows.jsonl"]
    assert len(judged.lines("verdicts.jsonl")) == 2


def test_stages_without_a_word_and_many_stages(tmp_path: Path) -> None:
    first, last = chained([("samples", {"prompt": "x"})], "one")
    second, end = chained([("samples", {"prompt": "x"}), ("samples", {"prompt": "y"})], "two")
    plan = make_plan(make_output(), make_output("other"))
    facts = {"one": last, "two": end, "silent": GENESIS, "absent": GENESIS}
    judged = judge(tmp_path, plan, {"one": first, "two": second, "silent": b""}, facts)
    assert judged.code == 0, judged.error
    assert judged.declaration().accepted == {"samples": 2, "other": 0}
    assert [line["id"] for line in judged.lines("verdicts.jsonl")] == ["one-0", "two-0", "two-1"]


def test_more_rows_than_the_quota_however_they_came_in(tmp_path: Path) -> None:
    judged = one(tmp_path, [{"prompt": str(number)} for number in range(5)], per_run=3)
    assert judged.declaration().accepted == {"samples": 3}
    assert judged.lines("verdicts.jsonl")[4]["reasons"][0]["code"] == "CSM-W002"


def test_rejections_beyond_the_bound_are_counted_not_listed(tmp_path: Path) -> None:
    judged = one(tmp_path, [{"prompt": str(number), "score": -1} for number in range(1100)], per_run=2000)
    assert len(judged.events) == 1001
    assert judged.events[-1]["attrs"]["casemate.write.rejected"] == 1100
    assert judged.events[-1]["reason"] == "CSM-W003: 1100"


def buffer_of(count: int = 5) -> tuple[list[bytes], str]:
    data, last = chained([("samples", {"prompt": f"row {number}"}) for number in range(count)])
    return data.splitlines(keepends=True), last


def tampered() -> list[Any]:
    lines, last = buffer_of()
    other = chained([("samples", {"prompt": "mine"})], "other")[0]
    longer = chained([("samples", {"prompt": f"row {number}"}) for number in range(6)])[0]
    foreign, foreign_last = chained([("unknown", {"prompt": "x"})])
    cases = {
        "edited": (b"".join(lines).replace(b"row 2", b"row 9"), last),
        "last line edited": (b"".join(lines).replace(b"row 4", b"row 9"), last),
        "line dropped": (b"".join(lines[:2] + lines[3:]), last),
        "last line dropped": (b"".join(lines[:4]), last),
        "first line dropped": (b"".join(lines[1:]), last),
        "all dropped": (b"", last),
        "cut off": (b"".join(lines)[:-20], last),
        "newline cut off": (b"".join(lines)[:-1], last),
        "reordered": (b"".join([lines[1], lines[0], *lines[2:]]), last),
        "repeated": (b"".join([*lines, lines[4]]), last),
        "added": (longer, last),
        "blank line": (b"".join([*lines, b"\n"]), last),
        "of another stage": (other, digest(other[:-1])),
        "not proposals": (b'{"a":1}\n', digest(b'{"a":1}')),
        "junk": (b"\x00\xff\n", digest(b"\x00\xff")),
        "unknown output": (foreign, foreign_last),
        "the log says nothing was proposed": (b"".join(lines), GENESIS),
    }
    return [pytest.param(*case, id=name) for name, case in cases.items()]


@pytest.mark.parametrize(("data", "last"), tampered())
def test_a_buffer_that_the_log_does_not_vouch_for_is_refused_whole(tmp_path: Path, data: bytes, last: str) -> None:
    good, good_last = chained([("samples", {"prompt": "honest"})], "honest")
    judged = judge(
        tmp_path, make_plan(make_output()), {"draft": data, "honest": good}, {"draft": last, "honest": good_last}
    )
    assert (judged.code, judged.events) == (2, [])
    assert judged.error.startswith("CSM-W007")
    assert list(judged.out.iterdir()) == []


def test_buffers_and_facts_must_match(tmp_path: Path) -> None:
    lines, last = buffer_of()
    plan = make_plan(make_output())
    cases: list[tuple[dict[str, bytes], dict[str, str]]] = [
        ({"draft": b"".join(lines)}, {}),
        ({}, {"draft": last}),
        ({"draft": b"".join(lines), "more": b""}, {"draft": last}),
        ({}, {"../draft": GENESIS}),
    ]
    for number, (buffers, facts) in enumerate(cases):
        judged = judge(tmp_path / str(number), plan, buffers, facts)
        assert (judged.code, judged.error[:8], list(judged.out.iterdir())) == (2, "CSM-W007", [])


def test_a_wrong_birth_or_a_used_directory_writes_nothing(tmp_path: Path) -> None:
    plan = make_plan(make_output())
    good = birth(plan, Component.CUSTOMS)
    messages = [good.replace(b'\\"per_run\\":100', b'\\"per_run\\":101'), good[:-3], birth(plan, Component.GATEWAY)]
    for number, message in enumerate(messages):
        judged = judge(tmp_path / str(number), plan, {}, {}, message=message)
        assert (judged.code, judged.error[:8], list(judged.out.iterdir())) == (2, "CSM-R010", [])
    empty = judge(tmp_path / "empty", plan, {}, {}, secrets={"none": ""})
    assert (empty.code, empty.error[:8]) == (2, "CSM-R009")
    used = tmp_path / "used"
    (used / "out" / "x").mkdir(parents=True)
    process = start("customs", used, good)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.wait(60) == 2
    assert process.stderr.read().startswith(b"CSM-W010")
    process.stdout.close()
    process.stderr.close()


def test_from_an_agent_to_a_file(serving: Start, tmp_path: Path) -> None:
    server = serving(make_output())
    for record in MIXED:
        server.call("samples", record)
    assert server.stop() == 0
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    shutil.copy(tmp_path / "buffer" / "draft.jsonl", tmp_path / "in" / "draft.jsonl")
    message = birth(server.plan, Component.CUSTOMS, secrets={"hub": SECRET}, facts=server.vouched())
    process = start("customs", tmp_path, message)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read()
    process.stdout.close()
    process.stderr.close()
    assert process.wait(60) == 0
    declaration = json.loads((tmp_path / "out" / "declaration.json").read_bytes())
    assert (declaration["accepted"], declaration["rejected"]) == ({"samples": 2}, {"samples": 5})


def test_a_full_disk_leaves_no_declaration(tmp_path: Path) -> None:
    data, last = chained([("samples", {"prompt": f"{number} " + "x" * 500}) for number in range(40)])
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "in" / "draft.jsonl").write_bytes(data)
    message = birth(make_plan(make_output()), Component.CUSTOMS, facts={"buffer/draft": last})
    process = start("customs", tmp_path, message, ("sh", "-c", 'ulimit -f 4 && exec "$@"', "sh"))
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read()
    process.stdout.close()
    process.stderr.close()
    assert process.wait(60) in {1, 2}
    assert not (tmp_path / "out" / "declaration.json").exists()
    assert not (tmp_path / "out" / "samples.jsonl").exists()


@settings(max_examples=150)
@given(count=st.integers(1, 6), position=st.integers(0), byte=st.integers(0, 255), cut=st.booleans())
def test_no_single_change_of_a_buffer_goes_unseen(
    tmp_path_factory: pytest.TempPathFactory, count: int, position: int, byte: int, cut: bool
) -> None:
    lines, last = buffer_of(count)
    data = b"".join(lines)
    place = position % len(data)
    changed = data[:place] if cut else data[:place] + bytes([byte]) + data[place + 1 :]
    path = tmp_path_factory.mktemp("chain") / "draft.jsonl"
    path.write_bytes(changed)
    if changed == data:
        assert len(list(rows(path, "draft", last))) == count
        return
    with pytest.raises(CasemateError) as refused:
        list(rows(path, "draft", last))
    assert refused.value.code == "CSM-W007"


@pytest.mark.parametrize(
    ("changes", "rows_held"),
    [({"approval": "always"}, 3), ({"approve_over": 2}, 3), ({"approve_over": 3}, 0), ({"approval": "on_hold"}, 0)],
)
def test_what_needs_an_approval_waits(tmp_path: Path, changes: dict[str, Any], rows_held: int) -> None:
    judged = one(tmp_path, [{"prompt": name} for name in ("one", "two", "three")], **changes)
    declared = judged.declaration()
    assert sum(item.rows for item in declared.held) == rows_held
    assert declared.accepted == {"samples": 3 - rows_held}
    codes = [line["reasons"][0]["code"] for line in judged.lines("verdicts.jsonl") if line["verdict"] == "hold"]
    assert codes == ["CSM-W018"] * rows_held


def test_what_was_approved_is_written_and_nothing_else(tmp_path: Path) -> None:
    records = [{"prompt": "one"}, {"prompt": "two", "n": "x"}, {"prompt": "three"}]
    data, last = chained([("samples", record) for record in records])
    plan = make_plan(make_output(approval="always", atomic="each"))
    held = judge(tmp_path / "a", plan, {"draft": data}, {"draft": last}).declaration().held[0]
    more = {"approved/samples": held.digest}
    approved = judge(tmp_path / "b", plan, {"draft": data}, {"draft": last}, more=more)
    assert approved.declaration().accepted == {"samples": 2}
    assert approved.declaration().rejected == {"samples": 1}  # a person approves no row that does not fit
    assert approved.lines("samples.jsonl") == [records[0], records[2]]
    other = judge(tmp_path / "c", plan, {"draft": data}, {"draft": last}, more={"approved/samples": GENESIS})
    assert other.code != 0
    assert "CSM-W018" in other.error
    assert not (other.out / "declaration.json").exists()


def test_a_row_that_is_held_takes_no_other_along_but_a_rejected_one_takes_all(tmp_path: Path) -> None:
    hidden, fine = {"prompt": "a\u200bb"}, {"prompt": "fine"}
    changes: dict[str, Any] = {"scan": ["secrets", "unicode"], "findings": {"unicode": "hold"}, "atomic": "batch"}
    held = one(tmp_path / "held", [hidden, fine], **changes)
    assert [line["verdict"] for line in held.lines("verdicts.jsonl")] == ["hold", "accept"]
    broken = one(tmp_path / "broken", [hidden, fine, {"prompt": "x", "score": 99}], **changes)
    assert [line["verdict"] for line in broken.lines("verdicts.jsonl")] == ["reject"] * 3
    assert (broken.declaration().written, broken.declaration().held) == ([], [])


def test_values_are_the_same_however_the_rows_around_them_look(tmp_path: Path) -> None:
    """Keys of a chunk are made in one of three ways; what is equal is equal in all of them."""
    schema = {"type": "object", "properties": {"a": {}, "b": {}}, "additionalProperties": False}
    plain = [{"a": 1, "b": "x"}, {"a": 2, "b": "ü"}]
    ways = [plain, [*plain, {"a": 1.5, "b": None}], [*plain, {"a": 1}, {"b": 1}, {}]]
    rows: list[dict[str, Any]] = []
    for number, way in enumerate(ways):
        rows += [*way, *({"a": n, "b": number} for n in range(CHUNK_ROWS - len(way)))]
    changes: dict[str, Any] = {"schema": schema, "bounds": {}, "unique": ["a", "b"], "per_run": 9 * CHUNK_ROWS}
    judged = one(tmp_path, [*rows, {"a": 1.0, "b": "x"}], **changes)
    assert judged.code == 0, judged.error
    twice = [n for n, line in enumerate(judged.lines("verdicts.jsonl")) if line["verdict"] != "accept"]
    assert twice == [CHUNK_ROWS, CHUNK_ROWS + 1, 2 * CHUNK_ROWS, 2 * CHUNK_ROWS + 1, 3 * CHUNK_ROWS]


def test_large_rows_are_unique_too(tmp_path: Path) -> None:
    large = {"prompt": "x" * 150_000, "n": 1}
    judged = one(tmp_path, [large, {**large, "n": 2}, large], max_bytes=10**7)
    codes = [[reason["code"] for reason in line["reasons"]] for line in judged.lines("verdicts.jsonl")]
    assert codes == [[], ["CSM-W004"], ["CSM-W004"]]


REFERRING: dict[str, Any] = {
    "schema": {
        "type": "object",
        "properties": {
            "text": {"type": "string", "maxLength": 20},
            "on": {"type": ["string", "null"], "format": "proposal-id"},
        },
        "additionalProperties": False,
    },
    "bounds": {},
    "unique": [],
}


def test_what_refers_to_anything_but_a_record_that_is_written_is_rejected(tmp_path: Path) -> None:
    records: list[dict[str, Any]] = [
        {"text": "an issue", "on": None},
        {"text": "a comment", "on": "draft-0"},
        {"text": "too long to be written at all"},
        {"text": "on a rejected one", "on": "draft-2"},
        {"text": "on that", "on": "draft-3"},
        {"text": "on nothing", "on": "draft-77"},
        {"text": "of another stage", "on": "other-0"},
    ]
    judged = one(tmp_path, records, **REFERRING)
    codes = [[reason["code"] for reason in line["reasons"]] for line in judged.lines("verdicts.jsonl")]
    assert codes == [[], [], ["CSM-W001"], *[["CSM-W015"]] * 4]
