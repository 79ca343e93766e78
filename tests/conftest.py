"""How generated cases are made, for every test: a slow machine is no failure, and a build's result depends on its code.

Set CASEMATE_CASES to draw new cases each time (and, in `tests/sandbox/test_properties.py`, that many).
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "casemate",
    deadline=None,
    derandomize="CASEMATE_CASES" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("casemate")
