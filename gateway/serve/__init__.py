"""The agent-facing half: MCP on one Unix socket a stage, append only, no credential."""
