"""The host: compiler, orchestrator, command line.

Reading order: language, checks, compiler, plan_check, plans, topology, engine, cells, sinks, durable, records, cli.
"""
