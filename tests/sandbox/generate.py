"""Workflows by the thousand, sound by construction: every feature of the language, in random combinations."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec

from policies.canonical import digest
from policies.plan import Plan
from sandbox.compiler.compile import compile_plan, wanted_images
from sandbox.compiler.resolve import Facts, FileFact
from sandbox.language.source import Document
from sandbox.language.workflow import Workflow
from sandbox.lineage.registry import registry
from tests.plans import SCHEMA, SHA

PROBES = "sha256:" + "b" * 64
"""The digest of a file that no agent is given."""

LOCAL, REMOTE = "gemma-3-270m", "gpt-4o-mini"
PROPOSALS: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["title", "patch"],
    "properties": {name: {"type": "string"} for name in ("title", "body", "patch")},
}
HOSTS = ("data.example.com", "*.cdn.example.com", "api.example.org", "files.example.net")
SINKS: tuple[dict[str, str], ...] = (
    {"kind": "dataset", "path": "out/{}.jsonl"},
    {"kind": "dataset", "path": "out/{}.parquet"},
    {"kind": "file", "path": "out/{}.txt"},
    {"kind": "git", "repository": "https://git.example.com/acme/r{}.git", "base": "main"},
    {"kind": "sql", "url": "postgresql://writer@db.example.com/d{}", "table": "t_{}"},
    {
        "kind": "mlflow",
        "url": "https://mlflow.example.com/{}",
        "registered_model": "m-{}",
        "source": "mlflow-artifacts:/m-{}",
        "alias": "candidate",
    },
    {"kind": "http", "url": "https://api.example.com/{}"},
    {"kind": "mcp", "server": "tool-0", "tool": "write_{}"},
)


def some(random: Random, items: Any, most: int = 3) -> list[Any]:
    """Return a random selection, in random order."""
    pool = list(items)
    random.shuffle(pool)
    return pool[: random.randint(0, min(most, len(pool)))]


def workflow(random: Random) -> dict[str, Any]:
    """Return a workflow as a user would write it."""
    secrets: dict[str, Any] = {}

    def secret() -> str:
        name = f"secret-{len(secrets)}"
        secrets[name] = {"from": random.choice(["env", "file", "command"]), "key": f"KEY_{len(secrets)}"}
        return name

    inputs = {f"input-{n}": {"path": f"data/input-{n}.jsonl"} for n in range(random.randint(0, 4))}
    tools: dict[str, Any] = {"tool-0": {"image": "./images/tool", "egress": [{"host": HOSTS[0]}]}}
    for n in range(1, random.randint(1, 3)):
        tools[f"tool-{n}"] = {"url": f"https://mcp-{n}.example.com/mcp"}
        if random.random() < 0.5:
            tools[f"tool-{n}"]["secret"] = secret()
    models = _models(random, secret)
    outputs = _outputs(random, secret)
    stages = [_stage(random, n, inputs, models, tools, outputs) for n in range(random.randint(1, 6))]
    if outputs:
        stages[-1]["outputs"] = sorted(outputs)
        stages[-1]["profile"] = "default"
    budget = {
        "usd": random.randint(0, 1000) / 7,
        "tokens": random.randint(1, 10**7),
        "calls": random.randint(100, 10**5),
    }
    per_day = {"per_day": {"tokens": 10**8, "usd": 1000}} if random.random() < 0.3 else {}
    name = f"generated-{random.randint(0, 999)}"
    if random.random() < 0.5:
        tools["tool-0"]["egress"].append({"host": "db.example.com", "port": 5432, "scheme": "tcp"})
        for tool in tools.values():
            if "url" in tool and "secret" in tool:
                end = {"token_url": "https://login.example.com/token", "client_id": "us", "scopes": ["read"]}
                tool |= random.choice([{"header": "X-Api-Key"}, {"oauth": end}])
        tools["tool-0"] |= {"secret": secret(), "secret_env": "DATABASE_PASSWORD", "run": ["serve"]}
    return {
        "casemate": 1,
        "name": name,
        "budget": {**budget, "wall": f"{random.randint(20, 90)}m", **per_day},
        "secrets": secrets,
        "models": models,
        "tools": tools,
        "inputs": inputs,
        "stages": stages,
        "outputs": outputs,
    }


def _models(random: Random, secret: Callable[[], str]) -> dict[str, Any]:
    models: dict[str, Any] = {}
    for n in range(random.randint(0, 4)):
        price = {"input": random.randint(0, 500) / 100, "output": random.randint(0, 500) / 100}
        model: dict[str, Any] = {"provider": "local", "model": LOCAL, "price": price}
        if random.random() < 0.5:
            model = {
                "provider": "openai-compatible",
                "model": REMOTE,
                "base_url": f"https://llm-{n}.example.com/v1",
                "price": price,
            }
            if random.random() < 0.7:
                model["secret"] = secret()
        if n and random.random() < 0.3:
            model["fallback"] = [f"model-{n - 1}"]
        if n and random.random() < 0.3:
            model["route"] = {"small": {"below": 100, "use": f"model-{n - 1}"}}
        models[f"model-{n}"] = model
    return models


def _outputs(random: Random, secret: Callable[[], str]) -> dict[str, Any]:
    outputs: dict[str, Any] = {}
    for n in range(random.randint(0, 4)):
        sink = {key: value.format(n) for key, value in random.choice(SINKS).items()}
        if sink["kind"] in ("git", "sql", "http") and random.random() < 0.5:
            sink["secret"] = secret()
        output: dict[str, Any] = {"sink": sink, "schema": "rows.json", "quota": {"per_run": random.randint(1, 100)}}
        if random.random() < 0.3:
            output["quota"]["per_day"] = 1000
        if random.random() < 0.4:
            output["bounds"] = {"score": random.choice([{"min": 0, "max": 1}, {"sigma": 5, "history": f"output-{n}"}])}
        if random.random() < 0.4:
            output["unique"] = ["text"]
        if sink["kind"] == "git":
            output.pop("bounds", None)
            _patches(random, output)
        output["scan"] = some(random, ["secrets", "pii", "unicode", "links"], 4)
        output["findings"] = {kind: "hold" for kind in some(random, output["scan"]) if kind != "secrets"}
        if "links" in output["scan"]:
            output["hosts"] = some(random, ["example.com", "*.example.org"], 2)
        output["approval"] = random.choice(["never", "always", "on_hold", {"over": 0}])
        if random.random() < 0.3:
            output["approvers"] = {"need": random.randint(1, 2), "of": ["anna", "ben"]}
        if random.random() < 0.2:
            output["contamination"] = ["evals.jsonl"]
        output["atomic"] = random.choice(["batch", "each"])
        outputs[f"output-{n}"] = output
    return outputs


def _patches(random: Random, output: dict[str, Any]) -> None:
    """Let an output be patches of a repository."""
    output["unique"] = ["title"]
    sink = output["sink"]
    if random.random() < 0.5:
        sink["patch"] = {"files": random.randint(1, 99), "paths": ["docs/**", "*.md"], "protected": "hold"}
        sink["patch"] |= {"unprotected": ["docs/.x"], "executable": True}
    if random.random() < 0.7:
        sink["pull_request"] = {"forge": random.choice(["github", "gitlab", "gitea", "pagure"])}
        if sink["pull_request"]["forge"] == "pagure":
            sink["user"] = "bot"
        else:
            sink["pull_request"] |= {"labels": ["bot"]} | random.choice([{}, {"draft": True}])
        sink["pull_request"] |= random.choice([{}, {"api": "https://api.example.com/v9"}])


def _rule(random: Random, host: str) -> dict[str, Any]:
    rule: dict[str, Any] = {"host": host, "port": random.choice([443, 8443])}
    if random.random() < 0.4:
        rule |= {"inspect": True, "methods": some(random, ["GET", "POST"]) or ["GET"], "paths": ["/a/b", "/c"]}
    if random.random() < 0.3:
        rule["quota"] = random.choice([{"requests": 5}, {"bytes": "1MiB"}, {"requests": 1, "bytes": "2KiB"}])
    return rule


TEXTS = [{"resource": "memo://*"}, {"prompt": "summary"}]


def _tool(random: Random, name: str) -> Any:
    if random.random() < 0.5:
        return name
    guard = {"path": {"below": "/inputs/repo"}, "url": {"hosts": [HOSTS[0]]}, "revision": {"no_dash": True}}
    return {"name": name, "calls": random.randint(1, 99), "guard": {k: guard[k] for k in some(random, guard)} or guard}


def _stage(random: Random, n: int, inputs: Any, models: Any, tools: Any, outputs: Any) -> dict[str, Any]:
    stage: dict[str, Any] = {
        "name": f"stage-{n}",
        "image": random.choice(["casemate/agent-python", "company/agent"]),
        "run": ["agent", str(random.randint(0, 9))],
        "needs": some(random, [f"stage-{m}" for m in range(n)]),
        "models": some(random, models),
        "outputs": some(random, outputs, 1),
        "env": {f"VAR_{m}": "value" for m in range(random.randint(0, 2))},
    }
    if random.random() < 0.5:
        stage["inputs"] = some(random, inputs)
    if random.random() < 0.5:
        stage["tools"] = {
            name: [_tool(random, f"read_{name}"), f"search_{name}", *TEXTS[: random.randint(0, 2)]]
            for name in some(random, tools)
        }
    if random.random() < 0.5:
        stage["egress"] = [_rule(random, host) for host in some(random, HOSTS)]
        if random.random() < 0.2:
            stage["egress"].append({"ecosystem": "pip"})
    if random.random() < 0.5:
        stage["limits"] = {
            "cpu": random.randint(1, 40) / 10,
            "memory": f"{random.randint(64, 4096)}MiB",
            "wall": f"{random.randint(1, 900)}s",
        }
        if random.random() < 0.5:
            stage["limits"] |= {"calls": random.randint(0, 100), "usd": 0}
        if random.random() < 0.3:
            stage["limits"]["rate"] = {"requests": f"{random.randint(1, 99)}/min", "parallel": random.randint(1, 9)}
            stage["limits"]["call"] = {"tokens": 1}
    mine = list(stage.get("inputs", inputs))
    if mine and random.random() < 0.2:
        stage["shards"] = {"over": mine[0], "size": random.randint(1, 50), "parallel": random.randint(1, 8)}
    if random.random() < 0.2:
        stage["retry"] = {"attempts": random.randint(1, 5)}
    if random.random() < 0.2:
        stage["cache"] = random.choice(["none", "exact"])
    if random.random() < 0.2:
        stage["locks"] = ["repo:x"]
    return stage


def _schema(kind: str) -> Any:
    """Return a schema whose records a kind of sink takes."""
    if kind == "git":
        return PROPOSALS
    if kind != "mlflow":
        return SCHEMA
    source = {"source": {"type": "string"}}
    return {**SCHEMA, "required": ["text", "source"], "properties": SCHEMA["properties"] | source}  # type: ignore[operator]


def facts_of(spec: Workflow) -> Facts:
    """Return the facts of a world in which everything that `spec` names exists."""
    files = {item.path: FileFact(SHA, 10, items=99) for item in spec.inputs.values()} | {
        "rows.json": FileFact(SHA, 10),
        "evals.jsonl": FileFact(PROBES, 10),
    }
    return Facts(
        files=files,
        schemas={name: _schema(output.sink.kind) for name, output in spec.outputs.items()},
        images=dict.fromkeys(wanted_images(spec), SHA),
        keys={"anna": "0" * 64, "ben": "1" * 64},
        ecosystems={"pip": ("mirror.example.com",)},
        registry=SHA,
        policies=SHA,
    )


def typed(data: dict[str, Any]) -> tuple[Workflow, Document, Facts]:
    """Return a generated workflow as the compiler wants it."""
    spec = msgspec.convert(data, Workflow, strict=False)
    document = Document("generated.yaml", data, {}, {}, digest(json.dumps(data, sort_keys=True).encode()))
    return spec, document, facts_of(spec)


def compiled(data: dict[str, Any]) -> Plan:
    """Compile a generated workflow."""
    spec, document, facts = typed(data)
    return compile_plan(spec, document, facts, {name: registry()[name] for name in (LOCAL, REMOTE)})
