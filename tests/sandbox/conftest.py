"""A project on disk, that is sound until a test breaks it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.plans import SCHEMA

WORKFLOW = """\
casemate: 1
name: example
budget: {usd: 1.5, tokens: 100_000, calls: 100, wall: 20m}
secrets:
  openai_key: {from: env, key: CASEMATE_TEST_KEY}
models:
  teacher:
    provider: local
    model: gemma-3-270m
    price: {input: 0.1, output: 0.4}
  judge:
    provider: openai-compatible
    model: gpt-4o-mini
    base_url: https://api.example.com/v1
    secret: openai_key
    price: {input: 0.15, output: 0.6}
inputs:
  seeds: {path: seeds.jsonl}
stages:
  - name: generate
    image: casemate/agent-python
    run: [python, /inputs/agent.py]
    models: [teacher, judge]
    egress:
      - {host: data.example.com}
      - {host: plain.example.com, scheme: http, methods: [GET]}
    limits: {cpu: 0.5, memory: 256MiB, pids: 64, disk: 32MiB, wall: 90s, calls: 10, usd: 0.5}
  - name: review
    image: casemate/agent-python
    run: [python, /inputs/agent.py]
    needs: [generate]
    outputs: [rows]
outputs:
  rows:
    sink: {kind: dataset, path: out/rows.parquet}
    schema: rows.json
    bounds: {score: {min: 0, max: 1}}
    quota: {per_run: 10}
    unique: [text]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return the path of a workflow that has no findings."""
    (tmp_path / "seeds.jsonl").write_text('{"n": 1}\n')
    (tmp_path / "rows.json").write_text(json.dumps(SCHEMA))
    path = tmp_path / "workflow.yaml"
    path.write_text(WORKFLOW)
    return path
