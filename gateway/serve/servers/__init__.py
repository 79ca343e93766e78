"""MCP servers, as clients of whom we act: `peer` is the protocol, `stdio` and `http` carry it, `session` is one server."""
