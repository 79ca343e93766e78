"""The closed vocabularies. A word that is not here does not exist at a boundary."""

from __future__ import annotations

from enum import IntEnum, StrEnum


class Component(StrEnum):
    """The processes of a run; also the actors of its events."""

    SANDBOX = "sandbox"
    FIREWALL = "firewall"
    LLM = "llm"
    GATEWAY = "gateway"
    CUSTOMS = "customs"
    AGENT = "agent"


class Verdict(StrEnum):
    """A decision at a door (allow, deny) or at customs (accept, reject, hold)."""

    ALLOW = "allow"
    DENY = "deny"
    ACCEPT = "accept"
    REJECT = "reject"
    HOLD = "hold"


class Outcome(StrEnum):
    """The explicit end of a stage or a run. There is no default."""

    COMPLETED = "completed"
    INCOMPLETE = "incomplete"
    DENIED = "denied"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"


class EventName(StrEnum):
    """Every kind of boundary crossing, and nothing else."""

    RUN_STARTED = "run.started"
    RUN_RESUMED = "run.resumed"
    RUN_ENDED = "run.ended"
    COMPONENT_READY = "component.ready"
    COMPONENT_SYNCED = "component.synced"
    COMPONENT_FAILED = "component.failed"
    SECRET_DELIVERED = "secret.delivered"  # noqa: S105 - the name of an event
    STAGE_STARTED = "stage.started"
    STAGE_RETRIED = "stage.retried"
    STAGE_REPORTED = "stage.reported"
    STAGE_ENDED = "stage.ended"
    EGRESS_DECIDED = "egress.decided"
    EGRESS_CLOSED = "egress.closed"
    LLM_DECIDED = "llm.decided"
    LLM_SETTLED = "llm.settled"
    TOOL_CALLED = "tool.called"
    TOOL_CHANGED = "tool.changed"
    TOOL_ANSWERED = "tool.answered"
    WRITE_PROPOSED = "write.proposed"
    WRITE_TAKEN = "write.taken"
    WRITE_JUDGED = "write.judged"
    WRITE_DECIDED = "write.decided"
    WRITE_SENT = "write.sent"
    WRITE_APPLIED = "write.applied"
    WRITE_UNDONE = "write.undone"
    ARTIFACT_TAKEN = "artifact.taken"


class ExitCode(IntEnum):
    """What `casemate` returns to the shell."""

    DONE = 0
    INTERNAL = 1
    USAGE = 2
    FINDINGS = 3
    REFUSED = 4
    STAGE_FAILED = 5
    WRITES_REJECTED = 6
    WRITES_HELD = 7
    TIMED_OUT = 124
    INTERRUPTED = 130


ATTRIBUTES: frozenset[str] = frozenset(
    {
        # OpenTelemetry names where they exist
        "gen_ai.operation.name",
        "gen_ai.provider.name",
        "gen_ai.request.model",
        "gen_ai.response.model",
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.output_tokens",
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.tool.name",
        "mcp.method.name",
        "casemate.server",
        "mcp.protocol.version",
        "http.request.method",
        "http.response.status_code",
        "url.path",
        "server.address",
        "server.port",
        "network.peer.address",
        "error.type",
        # ours where none exists
        "casemate.bytes.in",
        "casemate.bytes.out",
        "casemate.cost.usd_nanos",
        "casemate.reserved.usd_nanos",
        "casemate.reserved.tokens",
        "casemate.stream",
        "casemate.attempt",
        "casemate.asked",
        "casemate.cache",
        "casemate.model.planned",
        "casemate.model.answered",
        "casemate.replayed",
        "casemate.component",
        "casemate.certificate",
        "casemate.secret.name",
        "casemate.outcome",
        "casemate.exit_code",
        "casemate.output",
        "casemate.write.id",
        "casemate.write.digest",
        "casemate.write.count",
        "casemate.write.accepted",
        "casemate.write.rejected",
        "casemate.write.held",
        "casemate.write.pointer",
        "casemate.check",
        "casemate.path",
        "casemate.person",
        "casemate.signature",
        "casemate.digest",
        "casemate.receipt",
        "casemate.duration_ms",
    }
)
"""The only attribute keys that an event may carry; agent text is never a key."""
