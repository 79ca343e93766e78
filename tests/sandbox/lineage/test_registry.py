"""The registry that ships: whole, honest in form, and quick."""

from __future__ import annotations

from pathlib import Path

import pytest

from policies.errors import CasemateError
from sandbox.lineage.registry import Evidence, Registry, problems, registry, resolve
from tests.sandbox.lineage.conftest import ENTRY


def test_the_registry_holds_together() -> None:
    assert len(registry()) >= 60
    assert list(problems(registry())) == []
    assert {entry.relation for entry in registry().values()} == {
        "pretrain",
        "finetune",
        "adapter",
        "quantized",
        "merge",
        "pruned",
    }


def test_every_entry_has_a_source_and_no_evidence_that_nobody_gathered() -> None:
    for entry in registry().values():
        assert entry.source.startswith("https://"), entry.id
        assert entry.evidence is not Evidence.TESTED, entry.id


@pytest.mark.parametrize(
    ("name", "roots"),
    [
        ("Qwen/Qwen2.5-0.5B-Instruct-GGUF", ["qwen2.5-0.5b"]),
        ("meta-llama/llama-3.2-1b", ["llama-3-8b"]),
        ("deepseek-r1-distill-qwen-7b", ["qwen2.5-7b"]),
        ("GPT-4o-mini-2024-07-18", ["openai-closed"]),
    ],
)
def test_a_model_is_found_by_any_of_its_names(name: str, roots: list[str]) -> None:
    entry = resolve(name)
    assert entry is not None
    assert entry.init_roots == roots


@pytest.mark.parametrize("name", ["", "../gpt-4o", "no-such-model", "/etc/passwd"])
def test_a_name_that_is_not_there_is_unknown(name: str) -> None:
    assert resolve(name) is None
    assert registry().get(name) is None


def folder_with(tmp_path: Path, **entries: dict[str, str]) -> Registry:
    plain = {"relation": "pretrain", "teachers": "", "rolling": "false", "evidence": "E2"}
    for name, fields in entries.items():
        text = ENTRY.format(**{**plain, "id": name, "roots": name, **fields})
        (tmp_path / f"{name}.yaml").write_text(text + fields.get("more", ""))
    return Registry(tmp_path)


def test_problems_between_entries_are_found(tmp_path: Path) -> None:
    broken = folder_with(
        tmp_path,
        a={"teachers": "b"},
        b={"teachers": "a"},
        c={"roots": "nowhere"},
        d={"teachers": "nobody"},
        e={"more": "aliases: [A]\n"},
        f={"roots": ""},
    )
    found = "\n".join(problems(broken))
    for word in (
        "a: learned from itself",
        "b: learned",
        'root "nowhere"',
        '"nobody"',
        'e: "A" is a name of a',
        "f: no",
    ):
        assert word in found


@pytest.mark.parametrize("text", ["id: [", "id: x\n", "[]", "id: other\n"])
def test_an_entry_that_is_not_valid_has_a_code(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(CasemateError, match="CSM-L011"):
        Registry(tmp_path)["x"]


def test_a_file_is_named_after_its_model(tmp_path: Path) -> None:
    whole = folder_with(tmp_path, a={})
    (tmp_path / "a.yaml").rename(tmp_path / "z.yaml")
    with pytest.raises(CasemateError, match='describes "a"'):
        Registry(tmp_path)["z"]
    assert list(whole) == ["a"]
