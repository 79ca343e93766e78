"""`python -m tests.images`: builds the images that only tests need, while tests that need none of them run."""

from __future__ import annotations

from sandbox.engine.host import connect
from sandbox.engine.images import (
    AGENT_CLAUDE,
    AGENT_CODEX,
    AGENT_OPENCODE,
    AGENT_TOOLS,
    GIT,
    MCP_SERVERS,
    ROOMTEST,
    TEST_MLFLOW,
    TEST_PAGURE,
    TEST_POSTGRES,
    TOOLS,
    build_all,
)

AGENTS = (AGENT_TOOLS, AGENT_CLAUDE, AGENT_CODEX, AGENT_OPENCODE)
SERVERS = (MCP_SERVERS, TOOLS, GIT, TEST_POSTGRES, TEST_MLFLOW, TEST_PAGURE)


def main() -> None:
    """Build them, the ones that are needed first before the others; whoever needs one earlier builds it."""
    engine = connect()
    for spec in (ROOMTEST, *SERVERS, *AGENTS):
        build_all(engine, lambda text: print(f"· {text}", flush=True), (spec,))


if __name__ == "__main__":
    main()
