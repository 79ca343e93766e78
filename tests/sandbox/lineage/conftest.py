"""A registry of a few invented models, and runs with real logs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from policies.events import Attribute, ComponentEvent, now
from policies.plan import Input, Model, Plan, Student, encode
from policies.slices import seal
from policies.vocabulary import Component, EventName
from sandbox.lineage.registry import Registry
from sandbox.lineage.types import Dataset
from sandbox.records.log import RunLog
from tests.plans import plan

ENTRY = """\
id: {id}
vendor: test
relation: {relation}
init_roots: [{roots}]
distilled_from: [{teachers}]
rolling: {rolling}
evidence: {evidence}
source: https://example.com/{id}
date: 2026-01-01
local: false
max_output_tokens: 100
"""

MODELS = {
    "alpha": ("pretrain", "alpha", "", "E2"),
    "alpha-chat": ("finetune", "alpha", "", "E2"),
    "alpha-chat-gguf": ("quantized", "alpha", "", "E2"),
    "alpha-small": ("pruned", "alpha", "alpha", "E2"),
    "alpha-lora": ("adapter", "alpha", "", "E2"),
    "beta": ("pretrain", "beta", "", "E2"),
    "beta-from-alpha": ("finetune", "beta", "alpha-chat", "E2"),
    "gamma": ("pretrain", "gamma", "", "E1"),
    "gamma-from-beta-from-alpha": ("finetune", "gamma", "beta-from-alpha", "E2"),
    "alpha-beta": ("merge", "alpha, beta", "", "E2"),
    "mystery": ("pretrain", "", "", "E0"),
    "closed": ("pretrain", "test-closed", "", "E1"),
    "closed-2026-01-01": ("pretrain", "test-closed", "", "E1"),
}


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """Return the invented registry."""
    folder = tmp_path_factory.mktemp("models")
    for name, (relation, roots, teachers, evidence) in MODELS.items():
        rolling = str(name == "closed").lower()
        fields = {"relation": relation, "roots": roots, "teachers": teachers, "evidence": evidence}
        (folder / f"{name}.yaml").write_text(ENTRY.format(id=name, rolling=rolling, **fields))
    return Registry(folder)


def sha(text: str) -> str:
    """Return a digest that stands for some content."""
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def data(text: str, path: str = "") -> Dataset:
    """Return a file of this content."""
    return Dataset(path=path or f"{text}.jsonl", digest=sha(text))


MakeRun = Callable[..., Path]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return an empty CASEMATE_HOME."""
    return tmp_path / ".casemate"


@pytest.fixture
def make_run(home: Path) -> MakeRun:
    """Return a function that leaves a run behind: plan, chained log, head."""
    count = 0

    def make(
        teacher: str,
        inputs: list[Dataset],
        outputs: list[Dataset],
        *,
        student: str | None = None,
        answered: str | None = "",
        rows: int = 3,
    ) -> Path:
        nonlocal count
        count += 1
        run = f"20260101-00000{count}-abcdef"
        folder = home / "runs" / run
        folder.mkdir(parents=True)
        made = _plan(teacher, inputs, outputs, student)
        (folder / "plan.json").write_bytes(encode(made))
        log = RunLog(folder, run, seal(made).plan)
        log.own(EventName.RUN_STARTED)
        attrs: dict[str, Attribute] = {
            "gen_ai.request.model": "remote",
            "gen_ai.response.model": teacher if answered == "" else answered,
            "gen_ai.usage.input_tokens": 5,
            "gen_ai.usage.output_tokens": 7,
        }
        log.append(_event(attrs))
        for item in outputs:
            log.own(
                EventName.WRITE_APPLIED,
                attrs={"casemate.path": item.path, "casemate.digest": item.digest, "casemate.write.count": rows},
            )
        log.close()
        return folder

    return make


def _plan(teacher: str, inputs: list[Dataset], outputs: list[Dataset], student: str | None) -> Plan:
    base = plan()
    remote: Model = msgspec.structs.replace(base.models[1], model=teacher)
    read = [
        Input(name=f"in{i}", path=item.path, target=item.path, digest=item.digest or "", size=1)
        for i, item in enumerate(inputs)
    ]
    written = [
        msgspec.structs.replace(base.outputs[0], name=f"out{i}", path=item.path) for i, item in enumerate(outputs)
    ]
    one = msgspec.structs.replace(base.stages[0], inputs=[item.name for item in read])
    two = msgspec.structs.replace(base.stages[1], outputs=[item.name for item in written])
    who = None
    if student:
        who = Student(model=student, init_root=None, policy="no-same-init", verdict="cross", exceptions=[])
    return msgspec.structs.replace(
        base, models=[base.models[0], remote], inputs=read, outputs=written, stages=[one, two], student=who
    )


def _event(attrs: dict[str, Attribute]) -> ComponentEvent:
    return ComponentEvent(
        n=0,
        time=now(),
        actor=Component.LLM,
        event=EventName.LLM_SETTLED,
        stage="one",
        verdict=None,
        rule=None,
        reason=None,
        attrs=attrs,
    )
