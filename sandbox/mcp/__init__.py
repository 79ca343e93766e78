"""Tools of MCP servers before a run: which may be judged, what a server offers now, what a person approved."""
