"""Asks a teacher for short reviews and proposes each as a draft. A plain agent that knows `openai` and `mcp`.

The teacher is a small base model: it continues text, so the prompt shows it examples and ends where it should go on.
"""

import asyncio
import json
from pathlib import Path

from mcp import Client
from openai import AsyncOpenAI

ATTEMPTS = 3
PARALLEL = 2
EXAMPLES = """Short reviews by happy customers, one per line.

Topic: restaurant | Review: Fresh fish, friendly people, and a table by the window; we will come back.
Topic: bicycle | Review: Light, quiet and quick to fold; I ride it to work every day.
Topic: hotel | Review: A clean room with a view of the harbour, and breakfast was worth getting up for.
Topic: novel | Review: A clever plot with warm characters; I read it in one night.
"""


async def ask(teacher: AsyncOpenAI, topic: str, attempt: int, gate: asyncio.Semaphore) -> dict[str, object]:
    async with gate:
        answer = await teacher.chat.completions.create(
            model="teacher",
            messages=[{"role": "user", "content": f"{EXAMPLES}Topic: {topic} | Review:"}],
            max_tokens=40,
            temperature=0.7,
            seed=attempt,
            stop=["\n"],
        )
    text = (answer.choices[0].message.content or "").strip()
    return {"topic": topic, "attempt": attempt, "text": text, "model": answer.model}


async def main() -> None:
    topics = [json.loads(line)["topic"] for line in Path("/inputs/seeds.jsonl").read_text().splitlines()]
    gate, teacher = asyncio.Semaphore(PARALLEL), AsyncOpenAI()
    drafts = await asyncio.gather(*(ask(teacher, t, n, gate) for t in topics for n in range(ATTEMPTS)))

    servers = json.loads(Path("/casemate/mcp.json").read_text())["mcpServers"]
    async with Client(servers["writes"]["url"]) as writes:
        for draft in drafts:
            result = await writes.call_tool("drafts", draft)
            if result.is_error:
                print("refused:", result.content[0].text)

    Path("/workspace/artifacts").mkdir(exist_ok=True)
    lines = "".join(json.dumps(draft) + "\n" for draft in drafts)
    Path("/workspace/artifacts/drafts.jsonl").write_text(lines)
    print(f"{len(drafts)} drafts on {len(topics)} topics")


asyncio.run(main())
