"""Logging and the import path."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from policies.errors import CasemateError
from proxy.start import check_import_path
from tests.proxy.kit import KEY, REPOSITORY

PROGRAM = """
import logging
import structlog
from proxy.start import configure_logging

configure_logging()

def fail(secret):
    headers = {"authorization": secret}
    raise ValueError("the reason")

for log in (structlog.get_logger(), logging.getLogger("asyncio")):
    try:
        fail(KEY)
    except ValueError as error:
        log.error("failed", exc_info=error)
logging.getLogger("asyncio").warning("GET /%s", KEY)
logging.getLogger("aiohttp.server").error("bad header %s", KEY)
"""


def test_trap_10_a_traceback_in_the_log_has_no_local_variables() -> None:
    program = f"import sys; KEY = sys.stdin.read()\n{PROGRAM}"
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, cwd=REPOSITORY, input=KEY, capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == ""
    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["failed", "failed"]
    assert [line["level"] for line in lines] == ["error", "error"]
    for line in lines:
        assert line["exception"][0]["exc_value"] == "the reason"
        assert not any(frame.get("locals") for frame in line["exception"][0]["frames"])
    assert KEY not in ended.stderr


def test_trap_9_this_packages_folders_are_refused_on_the_import_path() -> None:
    check_import_path([str(REPOSITORY), "/usr/lib/python3"])
    for folder in (REPOSITORY / "proxy", REPOSITORY / "proxy" / "egress", REPOSITORY / "proxy" / "llm"):
        with pytest.raises(CasemateError):
            check_import_path(["/usr/lib/python3", str(folder)])


def test_trap_9_the_working_folder_counts_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY / "proxy")
    with pytest.raises(CasemateError):
        check_import_path([""])
    monkeypatch.chdir(Path("/"))
    check_import_path([""])
