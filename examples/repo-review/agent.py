"""Reads the newest commit, lets a model correct each line that it added to a document, and proposes the corrections."""

import asyncio
import difflib
import json
import re
from collections.abc import Iterator
from pathlib import Path

from mcp import Client
from openai import AsyncOpenAI

REPO = "/tmp/repo"  # noqa: S108 - in the server's own cell
EXAMPLES = """Each sentence is written again without spelling mistakes.
The cat sat on teh mat. -> The cat sat on the mat.
Nothing is wrong here. -> Nothing is wrong here.
He beleives in good tests. -> He believes in good tests.
"""
HUNK = re.compile(r"@@ -\d+(?:,\d+)? \+(\d+)(?:,\d+)? @@")


def hunks(diff: str) -> Iterator[tuple[str, int, list[str], set[int]]]:
    """Yield of each hunk: the file, the number of its first line, its lines as they are now, and which were added."""
    path, found = "", None
    for line in diff.splitlines():
        if line.startswith(("--- ", "+++ ")):
            if found:
                yield found
            path, found = line.removeprefix("+++ b/"), None
        elif head := HUNK.match(line):
            if found:
                yield found
            found = (path, int(head[1]), [], set())
        elif found and line[:1] in (" ", "+"):
            if line[0] == "+":
                found[3].add(len(found[2]))
            found[2].append(line[1:])
    if found:
        yield found


async def corrected(model: AsyncOpenAI, line: str) -> str | None:
    """Return a line with its spelling corrected; None where the model would change more than that, or nothing."""
    question = [{"role": "user", "content": f"{EXAMPLES}{line} ->"}]
    answer = await model.chat.completions.create(
        model="reviewer", messages=question, max_tokens=48, temperature=0, stop=["\n"]
    )
    better = (answer.choices[0].message.content or "").strip()
    pairs = list(zip(line.split(), better.split(), strict=False))
    changed = [difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs if pair[0] != pair[1]]
    alike = len(better.split()) == len(line.split()) and 0 < len(changed) <= 2 and min(changed) >= 0.6
    return better if alike else None


def patch(path: str, first: int, lines: list[str], number: int, better: str) -> str:
    """Return the patch that replaces one line of a hunk."""
    low, high = max(0, number - 3), number + 4
    head = f"diff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n"
    before, after = lines[low:number], lines[number + 1 : high]
    count = len(before) + 1 + len(after)
    body = [f" {line}" for line in before] + [f"-{lines[number]}", f"+{better}"] + [f" {line}" for line in after]
    return head + f"@@ -{first + low},{count} +{first + low},{count} @@\n" + "".join(f"{line}\n" for line in body)


async def main() -> None:
    servers = json.loads(Path("/casemate/mcp.json").read_text())["mcpServers"]
    async with Client(servers["git"]["url"]) as git:
        answer = await git.call_tool("git_show", {"repo_path": REPO, "revision": "HEAD"})
        diff = "\n".join(part.text for part in answer.content if part.type == "text")
    model, looked, proposed = AsyncOpenAI(), 0, 0
    async with Client(servers["writes"]["url"]) as writes:
        for path, first, lines, added in hunks(diff):
            for number in sorted(added):
                line = lines[number]
                if not path.endswith(".md") or len(line.split()) < 3 or line.startswith("#"):
                    continue
                looked += 1
                better = await corrected(model, line)
                print(f"{line!r}: {better!r}")
                if better is None:
                    continue
                proposal = {
                    "title": f"Correct the spelling in {path}, line {first + number}",
                    "body": "A model corrected this line. Look whether it means what it meant.",
                    "patch": patch(path, first, lines, number, better),
                }
                result = await writes.call_tool("pulls", proposal)
                proposed += not result.is_error
        if not proposed:
            await writes.call_tool("noop", {"reason": f"nothing to correct in {looked} lines"})
    print(f"{proposed} corrections of {looked} lines")


asyncio.run(main())
