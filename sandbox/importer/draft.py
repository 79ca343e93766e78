"""Draft: the workflow as it grows, and how it is written in the end."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

SCHEMA = "https://json-schema.org/draft/2020-12/schema"
SCAN = ["secrets", "pii", "unicode", "links"]
_WORD = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*\Z")
_NOT_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n", "inf", "nan"})


@dataclass(slots=True)
class Output:
    """A kind of write as it grows. `hold`: why a person must look at each. `patch`, `pull_request`: of a sink `git`."""

    name: str
    sink: dict[str, Any]
    properties: dict[str, Any]
    required: list[str]
    per_run: int
    title: str
    hold: list[str] = field(default_factory=list)
    approval: str = "never"
    patch: dict[str, Any] = field(default_factory=dict)
    pull_request: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Draft:
    """Everything that ends in the files. `refused`: outputs and tools that no import may bring back."""

    name: str
    comments: list[str] = field(default_factory=list)
    provider: str = "openai"
    model: str = "gpt-4.1"
    key: str = "OPENAI_API_KEY"
    usd: float = 10.0
    calls: int = 500
    wall_minutes: int = 20
    env: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    egress: list[dict[str, Any]] = field(default_factory=list)
    tools: dict[str, dict[str, Any]] = field(default_factory=dict)
    reads: dict[str, list[str]] = field(default_factory=dict)
    outputs: dict[str, Output] = field(default_factory=dict)
    hold_all: list[str] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    texts: list[str] = field(default_factory=list)

    def secret(self, name: str, key: str) -> str:
        """Declare a secret that comes from an environment variable, and return its name.

        Each destination has one of its own, so that each can be given a token that can do only what it is for.
        """
        self.secrets[name[:40]] = key
        return name[:40]

    def allow(self, rule: dict[str, Any]) -> None:
        """Add an egress rule once."""
        if rule not in self.egress and len(self.egress) < 200:
            self.egress.append(rule)


def files_of(draft: Draft) -> dict[str, bytes]:
    """Return workflow, prompt and schemas."""
    files = {"workflow.yaml": _workflow(draft), "prompt.md": "\n".join(draft.texts).encode()}
    for output in draft.outputs.values():
        schema = {
            "$schema": SCHEMA,
            "title": output.title,
            "type": "object",
            "additionalProperties": False,
            "required": output.required,
            "properties": output.properties,
        }
        files[f"schemas/{output.name}.json"] = (json.dumps(schema, indent=2, ensure_ascii=True) + "\n").encode()
    return files


def _workflow(draft: Draft) -> bytes:
    model_secret = draft.secret("model", draft.key)
    wall = f"{draft.wall_minutes}m"
    stage: dict[str, Any] = {
        "name": "agent",
        "image": "casemate/agent-python",
        "run": ["python", "/inputs/agent.py"],
        **({"env": draft.env} if draft.env else {}),
        "inputs": ["agent", "prompt"],
        "models": ["agent"],
        **({"tools": draft.reads} if draft.reads else {}),
        **({"egress": draft.egress} if draft.egress else {}),
        **({"outputs": list(draft.outputs)} if draft.outputs else {}),
        "limits": {"wall": wall, "calls": draft.calls, "usd": draft.usd},
    }
    data: dict[str, Any] = {
        "casemate": 1,
        "name": draft.name,
        "task": "one",
        "budget": {"usd": draft.usd, "tokens": 2_000_000, "calls": draft.calls, "wall": wall},
        "secrets": {name: {"from": "env", "key": key} for name, key in draft.secrets.items()},
        "models": {"agent": {"provider": draft.provider, "model": draft.model, "secret": model_secret}},
        **({"tools": draft.tools} if draft.tools else {}),
        "inputs": {"agent": {"path": "agent.py"}, "prompt": {"path": "prompt.md"}},
        "stages": [stage],
        **({"outputs": {o.name: _output(o, draft) for o in draft.outputs.values()}} if draft.outputs else {}),
    }
    # comments are ASCII: nothing in them can hide or end the line
    lines = [f"# {line.encode('ascii', 'replace').decode()}" for line in draft.comments]
    text = yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=100, default_flow_style=False, allow_unicode=False)
    return "\n".join([*lines, text]).encode()


def _output(output: Output, draft: Draft) -> dict[str, Any]:
    held = bool(output.hold or draft.hold_all)
    return {
        "sink": output.sink,
        "schema": f"schemas/{output.name}.json",
        "quota": {"per_run": output.per_run},
        "scan": list(SCAN),
        "approval": "always" if held else output.approval,
        "atomic": "each",
    }


class _Dumper(yaml.SafeDumper):
    """Quotes every string that any reading of YAML could take for something else."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the library's signature
        return True


def _represent(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    safe = _WORD.match(text) is not None and text.lower() not in _NOT_WORDS
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if safe else '"')


_Dumper.add_representer(str, _represent)
