"""Read the last commits of the repository, and what the newest one changed; leave both as an artifact."""

import asyncio
import json
from pathlib import Path

from mcp import Client

REPO = "/tmp/repo"  # noqa: S108 - in the server's own cell


async def main() -> dict[str, str]:
    async with Client("http://127.0.0.1:5000/mcp/git") as git:

        async def ask(tool: str, **arguments: object) -> str:
            answer = await git.call_tool(tool, {"repo_path": REPO, **arguments})
            return "\n".join(part.text for part in answer.content if part.type == "text")

        return {"log": await ask("git_log", max_count=5), "newest": await ask("git_show", revision="HEAD")}


folder = Path("/workspace/artifacts")
folder.mkdir(parents=True, exist_ok=True)
(folder / "history.json").write_text(json.dumps(asyncio.run(main()), indent=1))
