"""The two trusted processes that an agent's traffic goes through. Reading order:

`start`               birth, doors, the end: common to both; `__main__` wires

egress, the firewall: the only process with a way out
`egress.types`        the words
`egress.head`         bytes to a head with one reading (pure)
`egress.normalise`    a head to the request that it means (pure)
`egress.paths`        which paths a rule admits (pure)
`egress.decide`       the request and the rules to a decision (pure)
`egress.clienthello`  the first bytes of a tunnel to the name that they ask for (pure)
`egress.addresses`    which addresses may be reached; resolve, check, pin, connect
`egress.answers`      what the cell and the event log are told (pure)
`egress.relay`        bytes both ways
`egress.tunnel`       CONNECT, and the tunnels of other trusted processes
`egress.framing`      bytes of a connection to heads and bodies, and heads written anew
`egress.upstream`     one connection to a destination; the only file that imports h11
`egress.quota`        what a stage may still move by a rule
`egress.credential`   secrets in headers, and out of answers (pure)
`egress.exchange`     each request judged, carried, answered
`egress.issuer`       the run's certificate authority
`egress.inspection`   ends the TLS of a tunnel that is inspected
`egress.front`        the doors
`egress.app`          all doors of a slice

llm, the LLM API proxy: holds the provider keys, has no network but a tunnel
`llm.types`           the words
`llm.charges`         what a call may cost at most, and what it cost (pure)
`llm.ledger`          reserve, then settle: SQLite
`llm.formats`         the wire formats, one file each, and the table of who speaks which (pure)
`llm.request`         what an agent asks to what a provider is asked (pure)
`llm.response`        what a provider answers: usage, model, redaction (pure)
`llm.stream`          the same for a stream of events (pure)
`llm.models`          the list of models, as each client reads it (pure)
`llm.denials`         what an agent is told when it is refused (pure)
`llm.limits`          requests and tokens a minute, calls at once
`llm.retry`           whether an attempt is made again, and when (pure)
`llm.breaker`         a provider that keeps failing is left alone (time is given)
`llm.routing`         which model a call goes to, and which come after it (pure)
`llm.taken`           an answer that was taken down, and the key of what was asked (pure)
`llm.cache`           a stage's exact-match cache, in memory
`llm.recording`       record and replay
`llm.upstream`        the pooled client through the tunnel
`llm.door`            a stage's door: connections, routes, denials
`llm.attempt`         one attempt at one provider
`llm.call`            one call of a model, from the door to its settlement
`llm.app`             all doors of a slice
"""
