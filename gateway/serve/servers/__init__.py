"""MCP servers, whose client we are: `peer` is the protocol, `stdio` and `http` carry it, `session` is one server."""
