"""Lineage: what a student is exposed to, and whether it shares an initial checkpoint with any of it.

Reading order: `registry` (what is known of models), `types` (the lattice and the facts), `graph` (from facts to edges),
`gate` (from edges to a verdict), `grants` (signed exceptions), `facts` (the edge that reads runs and files), `commands`
(what people see).

What it does not promise: data that an agent fetched over the network, or that people pasted, have no record. A file
that no run wrote counts as human where it is an ordinary input, and as unknown under `lineage.datasets`. A provider
that answers under another model's name is believed. Whoever can delete a run's folder deletes its record. Crossing
families blocks the hidden channel, never the overt one.
"""
