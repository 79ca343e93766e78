"""The two trusted processes between an agent's proposals and the world: `serve` buffers, `customs` judges.

They never run at the same time for one stage and share nothing but a file format (`policies.writes`): `serve` faces the
agent over MCP and can only append; `customs` starts when every agent is gone and is the first to interpret what was
appended. Neither has a network interface.

Reading order:

1. `policies/writes.py` - what a proposal, a judgement and a declaration are; the hash chain.
2. `serve/envelope.py` - the strict JSON-RPC envelope (pure), then `serve/tools.py`, `serve/admit.py` (pure).
3. `serve/desk.py` - one stage's desk: every request ends in one reply and, when it mattered, one event.
4. `serve/buffer.py`, `serve/app.py`, `serve/server.py` - the edges: file, HTTP, sockets.
5. `customs/chain.py` - is this the buffer that the event log vouches for?
6. `customs/checks/` - one pure rule a file, ordered by `checks/registry.py`; `customs/scan/` finds secrets.
7. `customs/judge.py`, `customs/dataset.py`, `customs/run.py` - verdicts, the sink, and the order of it all.
8. `start.py`, `__main__.py` - how both are born.
"""
