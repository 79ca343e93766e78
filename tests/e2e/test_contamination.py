"""What a model will be evaluated by does not get into what it is taught, and agents never see it."""

from __future__ import annotations

import json

from tests.lab import PROPOSE, Lab


def test_a_row_that_holds_a_probe_is_rejected_and_no_agent_has_seen_the_probes(lab: Lab) -> None:
    probe = "A train leaves Hamburg at 9:40 and arrives in Kiel 75 minutes later; how fast was it over 97 kilometres?"
    (lab.folder / "evals.jsonl").write_text(json.dumps({"question": probe, "answer": "77.6 km/h"}) + "\n")
    sink = {"kind": "dataset", "path": "out/rows.jsonl"}
    row = {"sink": sink, "schema": "rows.json", "quota": {"per_run": 9}, "contamination": ["evals.jsonl"]}
    agent = PROPOSE + f"asyncio.run(propose({{'text': 'one'}}, {{'text': 'Say: ' + {probe!r}.upper()}}))\n"
    agent += "import os; print(sorted(os.listdir('/inputs')))\n"
    result = lab.run(lab.workflow(agent, outputs=["rows"], top={"outputs": {"rows": row}}))
    texts = [json.loads(line)["text"] for line in (lab.folder / "out" / "rows.jsonl").read_text().splitlines()]
    assert (result.exit_code, texts) == (0, ["one"]), result.stderr
    (rejected,) = [event for event in result.of("write.judged") if event.stage]
    assert rejected.reason == "evals.jsonl:1"
    assert "['agent.py']" in result.agent_log(), "the control: it looked"
