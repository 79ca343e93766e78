"""Finds secrets in a record: decode first, then scan the text plane.

Order: `plane` (all keys, strings and numbers) → `layers` (what is encoded in them) → `values` (the run's own
secrets, in every guise) and `rules` (providers' patterns) → `scanner` (findings by place) → `glue`
(over rows) → `redact`.
"""
