"""Fetch a page that is allowed and one that is not; leave what came of both as an artifact."""

import asyncio
import json
from pathlib import Path

from mcp import Client

PAGES = ("https://docs.python.org/3/", "https://www.example.com/")


async def main() -> dict[str, list[object]]:
    async with Client("http://127.0.0.1:5000/mcp/web") as web:

        async def fetch(url: str) -> list[object]:
            answer = await web.call_tool("fetch", {"url": url, "raw": True, "max_length": 2000})
            return [answer.is_error, "\n".join(part.text for part in answer.content if part.type == "text")]

        return {page: await fetch(page) for page in PAGES}


folder = Path("/workspace/artifacts")
folder.mkdir(parents=True, exist_ok=True)
(folder / "pages.json").write_text(json.dumps(asyncio.run(main()), indent=1))
