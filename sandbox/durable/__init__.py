"""Durable runs: where a run stands, written down before it is acted on, so that it can go on after any crash.

Read `machine` (the tables), `journal` (their record), `account` (what a log adds up to), `ahead` (what is left to run),
`leg` (one set of trusted processes and the cells that they serve), `judging` (what becomes of the writes), `salvage`
(what a crash left), then `job` (one run, from wherever it stands to its end).
"""
