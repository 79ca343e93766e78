"""Reads the drafts of the stage before and proposes samples. It has no model, and it is not careful: customs is."""

import asyncio
import json
from pathlib import Path

from mcp import Client


def sample(draft: dict[str, str]) -> dict[str, object]:
    """Turn a draft into a row for the student."""
    review = " ".join(draft["text"].split())
    return {
        "prompt": f"Write a short review of a happy customer. Topic: {draft['topic']}",
        "topic": draft["topic"],
        "review": review,
        "words": len(review.split()),
    }


async def main() -> None:
    drafts = [json.loads(line) for line in Path("/artifacts/generate/drafts.jsonl").read_text().splitlines()]
    servers = json.loads(Path("/casemate/mcp.json").read_text())["mcpServers"]
    proposed = 0
    async with Client(servers["writes"]["url"]) as writes:
        for draft in drafts:
            result = await writes.call_tool("samples", sample(draft))
            proposed += not result.is_error
    print(f"{proposed} of {len(drafts)} drafts proposed as samples")


asyncio.run(main())
