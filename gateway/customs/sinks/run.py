"""Apply one batch to one sink, or take it back; say what became of it in one event, and end.

Without that event nobody knows: the process died, and the orchestrator asks the sink by another one.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from policies.errors import CasemateError
from policies.events import Attribute, EventWriter
from policies.plan import Output, decode
from policies.sinks import At, Batch, Order, Sink, pass_by, settle
from policies.slices import Birth, CustomsSlice
from policies.vocabulary import Component, EventName, Verdict


def run(birth: Birth, part: CustomsSlice, root: Path, emit: EventWriter, at: At = pass_by) -> None:
    """Carry out the order in the birth message."""
    (output,) = part.outputs
    order = decode(birth.facts["order"].encode(), Order, code="CSM-R010", place=Component.CUSTOMS.value)
    batch = Batch(key=order.key, digest=order.digest, rows=root / "in" / "rows", count=order.count)
    try:
        _verify(batch)
        sink, receipt = _sink(output, part, root, birth), order.receipt
        if order.mode == "undo":
            sink.undo(batch, receipt)
        else:
            receipt = settle(sink, batch, again=order.mode == "again", at=at)
    except CasemateError as error:
        named: dict[str, Attribute] = {"casemate.output": output.name}
        emit(EventName.WRITE_SENT, verdict=Verdict.DENY, rule=error.code, reason=error.message, attrs=named)
        return
    done: dict[str, Attribute] = {"casemate.output": output.name, "casemate.receipt": receipt}
    emit(EventName.WRITE_SENT, verdict=Verdict.ACCEPT, attrs=done | {"casemate.write.count": order.count})


def _sink(output: Output, part: CustomsSlice, root: Path, birth: Birth) -> Sink:
    # Imported here: each has its own libraries, and an image that lacks those of the others.
    secret = birth.secrets[output.secret] if output.secret is not None else None
    match output.sink:
        case "http":
            from gateway.customs.sinks.http import HttpLine
            from gateway.customs.sinks.rows import RowSink

            return RowSink(output, HttpLine(output, secret, part.trust, root))
        case "mlflow":
            from gateway.customs.sinks.mlflow import MlflowSink

            return MlflowSink(output, secret, part.trust, root)
        case "mcp":
            from gateway.customs.sinks.mcp import McpLine
            from gateway.customs.sinks.rows import RowSink

            (server,) = part.servers
            return RowSink(output, McpLine(output, server, birth.secrets, part.trust, root))
        case "sql":
            from gateway.customs.sinks.sql import PostgresSink

            return PostgresSink(output, secret, part.trust, root)
        case "git":
            from gateway.customs.sinks.git import GitSink

            return GitSink(output, secret, part.trust, root, birth.run)
        case _:
            raise CasemateError("CSM-W010", f"a sink {output.sink} is not applied here")


def _verify(batch: Batch) -> None:
    with batch.rows.open("rb") as file:
        if f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}" != batch.digest:
            raise CasemateError("CSM-W010", "the rows are not those that were accepted")
