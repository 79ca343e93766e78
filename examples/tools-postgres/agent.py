"""Ask the database what sold best, and try to change it; leave what came of both as an artifact."""

import asyncio
import json
from pathlib import Path

from mcp import Client

ASK = {
    "best": "SELECT product, sum(amount) AS sold FROM sales GROUP BY product ORDER BY sold DESC",
    "many": "SELECT * FROM generate_series(1, 100000)",
    "slow": "SELECT pg_sleep(60)",
    "write": "INSERT INTO sales VALUES ('nothing', 1)",
    "two": "SELECT 1; COMMIT; DELETE FROM sales",
    "unlock": "SELECT set_config('transaction_read_only', 'off', false), count(*) FROM sales",
}


async def main() -> dict[str, list[object]]:
    async with Client("http://127.0.0.1:5000/mcp/shop") as shop:

        async def query(sql: str) -> list[object]:
            answer = await shop.call_tool("query", {"sql": sql})
            return [answer.is_error, "\n".join(part.text for part in answer.content if part.type == "text")]

        return {name: await query(sql) for name, sql in ASK.items()}


folder = Path("/workspace/artifacts")
folder.mkdir(parents=True, exist_ok=True)
(folder / "sales.json").write_text(json.dumps(asyncio.run(main()), indent=1))
