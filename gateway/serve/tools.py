"""The tools of a stage's write server, and the words in which they are explained to an agent. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from policies.plan import Output
from policies.writes import FILE_PATH

MAX_REASON = 2000
"""Characters of a reason that an agent gives."""

INSTRUCTIONS: Final = (
    "Everything here is a proposal. A record is buffered first; after you have ended, it is validated against rules "
    "that you cannot see, and written only if it passes. Call one tool per record. If there is nothing to write, "
    "call noop; if you cannot finish, call report_incomplete. For a large set write a file of JSON lines and "
    "call propose_file once."
)

_APPENDS: Final = {"readOnlyHint": False, "destructiveHint": False, "idempotentHint": False, "openWorldHint": False}
_READS: Final = {"readOnlyHint": True, "openWorldHint": False}

REASON_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"reason": {"type": "string", "minLength": 1, "maxLength": MAX_REASON}},
    "required": ["reason"],
    "additionalProperties": False,
}
FILE_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "output": {"type": "string"},
        "path": {"type": "string", "maxLength": 400, "pattern": f"^{FILE_PATH}$"},
    },
    "required": ["output", "path"],
    "additionalProperties": False,
}
EMPTY_SCHEMA: Final[dict[str, Any]] = {"type": "object", "properties": {}, "additionalProperties": False}


def definitions(outputs: Sequence[Output]) -> list[dict[str, Any]]:
    """Return the tool definitions of a stage that may propose `outputs`."""
    return [*(_output_tool(output) for output in outputs), *([_file_tool(outputs)] if outputs else []), *_own_tools()]


def _output_tool(output: Output) -> dict[str, Any]:
    return {
        "name": output.name,
        "title": f"Propose a record for {output.name}",
        "description": (
            f"Propose one record for the output {output.name!r}; the arguments are the record. It is only a proposal: "
            f"buffered now, validated after you have ended, written only if it passes. At most {output.per_run} "
            "records a run."
        ),
        "inputSchema": {**output.schema, "type": "object"},
        "annotations": _APPENDS,
    }


def _file_tool(outputs: Sequence[Output]) -> dict[str, Any]:
    names = [output.name for output in outputs]
    properties = {**FILE_SCHEMA["properties"], "output": {"type": "string", "enum": names}}
    return {
        "name": "propose_file",
        "title": "Propose many records at once",
        "description": (
            "Propose all records of a file of JSON lines below /workspace: one record a line, as in a call of the "
            "output's own tool. The file is copied when you have ended, as it is then."
        ),
        "inputSchema": {**FILE_SCHEMA, "properties": properties},
        "annotations": _APPENDS,
    }


def _own_tools() -> list[dict[str, Any]]:
    return [
        {
            "name": "noop",
            "title": "Nothing to write",
            "description": "Say that there is nothing to write, and why. Ending without a word counts as a failure.",
            "inputSchema": REASON_SCHEMA,
            "annotations": _APPENDS,
        },
        {
            "name": "report_incomplete",
            "title": "Could not finish",
            "description": "Say that the task could not be finished, and why.",
            "inputSchema": REASON_SCHEMA,
            "annotations": _APPENDS,
        },
        {
            "name": "write_status",
            "title": "What became of my proposals",
            "description": "Count the proposals that were buffered and refused so far, by output.",
            "inputSchema": EMPTY_SCHEMA,
            "annotations": _READS,
        },
    ]
