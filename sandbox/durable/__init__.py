"""Durable runs: where a run stands, written down before it is acted on, so that it can go on after any crash.

Read `machine` (the tables), `journal` (their record), `ahead` (what is left to run), `leg` (one set of trusted
processes and the cells that they serve), `judging` (what becomes of the writes), `salvage` (what a crash left), `job`
(one run, from wherever it stands to its end), then `runner` (who begins a run, goes on with one, or ends it).
"""
