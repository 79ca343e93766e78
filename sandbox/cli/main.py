"""The entry: every verb in one group, and every failure with a code. No traceback reaches a user."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import click

from policies.errors import CasemateError
from policies.vocabulary import ExitCode
from sandbox.cli import approvals, history, host, mcp, more, plans, runs, writes
from sandbox.cli.base import fail, report_findings, warn
from sandbox.language.findings import FindingsError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="casemate")
def app() -> None:
    """Run AI agents that nobody trusts: sealed cells, watched doors, validated writes."""


for _module in (plans, more, mcp, history, runs, writes, approvals, host):
    for _command in _module.COMMANDS:
        app.add_command(_command)


def main() -> NoReturn:
    """Run the command line."""
    code: int | None
    try:
        code = app(standalone_mode=False)
    except CasemateError as error:
        code = fail(error)
    except FindingsError as error:
        code = report_findings(error.findings, as_json=False)
    except click.exceptions.Exit as done:
        code = done.exit_code
    except click.ClickException as error:
        warn(f"CSM-R018: {error.format_message()}")
        code = ExitCode.USAGE
    except (KeyboardInterrupt, click.Abort):
        code = ExitCode.INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = ExitCode.DONE
    except Exception as error:  # noqa: BLE001 - a user sees a code, not our stack
        code = fail(CasemateError("CSM-R019", f"{type(error).__name__}: {error}"))
    sys.exit(int(code or 0))
