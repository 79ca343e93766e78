"""The host: compiler, orchestrator, command line.

Reading order: source, workflow, findings, checks, resolve, compiler, plan_check, topology, engine, log, runner, cli.
"""
