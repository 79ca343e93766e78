"""Plans for tests: complete, valid, and made without the compiler."""

from __future__ import annotations

import msgspec

from policies.plan import (
    Bound,
    Budget,
    EgressRule,
    Image,
    Input,
    Limits,
    Model,
    Output,
    Plan,
    Price,
    SecretBinding,
    Source,
    Stage,
)

SHA = "sha256:" + "a" * 64
LIMITS = Limits(
    cpu_millis=500, memory=128 << 20, pids=32, disk=16 << 20, wall_s=60, calls=10, tokens=10_000, usd_nanos=10**8
)
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["text"],
    "properties": {"text": {"type": "string"}, "score": {"type": "number"}},
}


def plan() -> Plan:
    """Return a plan with two stages, a remote and a local model, a secret, an egress rule and an output."""
    trusted = ["customs", "firewall", "gateway", "llm", "relay"]
    images = [f"casemate/{name}" for name in ("agent-python", *trusted, "model-gemma-3-270m")]
    return Plan(
        casemate=1,
        name="example",
        task="one",
        source=Source(workflow="workflow.yaml", digest=SHA, files={}, registry=SHA, policies=SHA),
        budget=Budget(usd_nanos=10**9, tokens=100_000, calls=100, wall_s=600),
        secrets=[
            SecretBinding(name="openai_key", origin="env", key="KEY", holder="llm", destination="api.example.com")
        ],
        models=[
            Model(
                alias="local",
                provider="local",
                model="gemma-3-270m",
                host="gemma-3-270m.local",
                port=443,
                base_path="/v1",
                local="gemma-3-270m",
                secret=None,
                price=Price(input=100, output=400),
                max_output_tokens=64,
            ),
            Model(
                alias="remote",
                provider="openai-compatible",
                model="gpt-4o-mini",
                host="api.example.com",
                port=443,
                base_path="/v1",
                local=None,
                secret="openai_key",
                price=Price(input=150, output=600),
                max_output_tokens=64,
            ),
        ],
        images=[Image(name=name, digest=SHA) for name in images],
        inputs=[Input(name="seeds", path="seeds.jsonl", target="seeds.jsonl", digest=SHA, size=10)],
        stages=[
            Stage(
                name="one",
                image="casemate/agent-python",
                run=["python", "/inputs/agent.py"],
                env={},
                needs=[],
                inputs=["seeds"],
                models=["local", "remote"],
                egress=[
                    EgressRule(
                        host="data.example.com",
                        port=443,
                        scheme="https",
                        inspect=False,
                        methods=[],
                        paths=[],
                        place="w.yaml:1:1",
                        quota=None,
                    )
                ],
                outputs=[],
                limits=LIMITS,
            ),
            Stage(
                name="two",
                image="casemate/agent-python",
                run=["python", "/inputs/agent.py"],
                env={"MODE": "quick"},
                needs=["one"],
                inputs=[],
                models=[],
                egress=[],
                outputs=["rows"],
                limits=LIMITS,
            ),
        ],
        outputs=[
            Output(
                name="rows",
                sink="dataset",
                path="out/rows.jsonl",
                format="jsonl",
                schema=SCHEMA,
                bounds={"score": Bound(min=0, max=1)},
                unique=["text"],
                scan=["secrets"],
                per_run=10,
                max_bytes=1 << 20,
                atomic="each",
            )
        ],
    )


def as_json(value: Plan) -> dict[str, object]:
    """Return a plan as plain JSON data."""
    result: dict[str, object] = msgspec.to_builtins(value)
    return result
