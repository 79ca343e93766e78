"""The engine: the one client of Docker, and what stands in an engine before a run, waits in it, or was left in it."""
