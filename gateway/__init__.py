"""The two trusted processes between an agent and the world: `serve` buffers writes and calls tools, `customs` judges.

They never run at the same time for one stage and share nothing but a file format (`policies.writes`): `serve` faces the
agent over MCP, can only append to a buffer, and calls tools that read; `customs` starts when every agent is gone and is
the first to interpret what was appended. Neither has a network interface.

Reading order:

1. `policies/writes.py` - what a proposal, a judgement and a declaration are; the hash chain.
2. `serve/envelope.py` - the strict JSON-RPC envelope (pure), then `serve/tools.py`, `serve/admit.py` (pure).
3. `serve/replies.py`, `serve/front.py` - what every server says alike; `serve/desk.py` - the buffer-only server: every
   request ends in one reply and, when it mattered, one event.
4. `serve/pins.py`, `serve/results.py` (pure), `serve/tooldesk.py` - tools of MCP servers: which are there, what goes
   in, what comes out; `serve/servers/` - the servers, whose client we are; `bridge.py` - how one in a container is met.
5. `serve/buffer.py`, `serve/app.py`, `serve/server.py` - the edges: file, HTTP, sockets.
6. `customs/chain.py` - is this the buffer that the event log vouches for?
7. `customs/checks/` - one pure rule a file; `customs/scan/` finds secrets; `customs/sieve/` says which rows need
   them; `customs/sheet/` reads flat rows for it by the byte; `customs/examine.py` has all of them judge a chunk.
8. `customs/judge.py`, `customs/dataset.py`, `customs/run.py` - verdicts, the sink, and the order of it all.
9. `customs/sinks/run.py` - who applies, in a container of its own; one file a sink. For a repository:
   `customs/patch.py` (pure), then `commits.py`, `plumbing.py`, `forges/` and `git.py` there.
10. `start.py`, `__main__.py` - how both are born.
"""
