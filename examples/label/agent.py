"""Reads products from a database, asks a model for the category of each a few times, and proposes the majority."""

import asyncio
import json
from collections import Counter
from pathlib import Path

from mcp import Client
from openai import AsyncOpenAI

CATEGORIES = ("food", "tool", "toy")
VOTES = 3
EXAMPLES = """Each product has one category: food, tool or toy.
bread: food
hammer: tool
teddy bear: toy
cheese: food
saw: tool
puzzle: toy
"""


async def vote(model: AsyncOpenAI, product: str, attempt: int) -> str:
    answer = await model.chat.completions.create(
        model="labeller",
        messages=[{"role": "user", "content": f"{EXAMPLES}{product}:"}],
        max_tokens=4,
        temperature=0.4,
        seed=attempt,
        stop=["\n"],
    )
    words = (answer.choices[0].message.content or "").split()
    return words[0].lower() if words and words[0].lower() in CATEGORIES else "unsure"


async def main() -> None:
    servers = json.loads(Path("/casemate/mcp.json").read_text())["mcpServers"]
    async with Client(servers["shop"]["url"]) as shop:
        answer = await shop.call_tool("query", {"sql": "SELECT DISTINCT product FROM sales ORDER BY product"})
        products = [row[0] for row in json.loads(answer.content[0].text)["rows"]]
    model, proposed = AsyncOpenAI(), 0
    async with Client(servers["writes"]["url"]) as writes:
        for product in products:
            votes = Counter([await vote(model, product, attempt) for attempt in range(VOTES)])
            category, count = votes.most_common(1)[0]
            if category == "unsure":
                print(f"{product}: no category")
                continue
            label = {"product": product, "category": category, "confidence": round(count / VOTES, 2)}
            result = await writes.call_tool("labels", label)
            proposed += not result.is_error
        if not proposed:
            await writes.call_tool("noop", {"reason": f"no category for any of {len(products)} products"})
    print(f"{proposed} labels for {len(products)} products")


asyncio.run(main())
