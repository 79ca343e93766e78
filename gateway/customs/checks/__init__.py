"""Checks: one pure rule a file over the proposals of one output; `registry.py` orders them."""
