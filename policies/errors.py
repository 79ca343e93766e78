"""Errors as users see them: a code that is never used twice, a place, and a hint.

Series: C compile, P proxy, G gateway, W writes, R run, L lineage. Every code has a heading in docs/errors.md.
"""

from __future__ import annotations

from policies.vocabulary import ExitCode

CODES: dict[str, str] = {
    # compile
    "CSM-C001": "the workflow cannot be read",
    "CSM-C002": "not valid YAML",
    "CSM-C003": "duplicate key",
    "CSM-C004": "YAML anchor, alias, merge or tag",
    "CSM-C005": "unknown field",
    "CSM-C006": "missing field",
    "CSM-C007": "wrong type or value",
    "CSM-C008": "literal secret in the workflow",
    "CSM-C009": "undeclared secret",
    "CSM-C010": "unused secret",
    "CSM-C011": "unknown model",
    "CSM-C012": "undeclared model alias",
    "CSM-C013": "undeclared output",
    "CSM-C014": "unknown stage in needs",
    "CSM-C015": "needs cycle",
    "CSM-C016": "output schema is missing or cannot be read",
    "CSM-C017": "schema is not valid",
    "CSM-C018": "remote $ref in a schema",
    "CSM-C019": "egress rule too wide",
    "CSM-C020": "egress rule names an IP address",
    "CSM-C021": "path leaves the project",
    "CSM-C022": "input cannot be read",
    "CSM-C023": "symbolic link in an input",
    "CSM-C024": "unknown image",
    "CSM-C025": "image is not pinned by digest",
    "CSM-C026": "model without a price",
    "CSM-C027": "environment variable that weakens a runtime",
    "CSM-C028": "duplicate name",
    "CSM-C029": "bounds or unique on a field that the schema does not have",
    "CSM-C030": "limit above the ceiling",
    "CSM-C031": "output that no stage proposes",
    "CSM-C032": "workflow too large or too deep",
    "CSM-C033": "two outputs write to one path",
    "CSM-C034": "hidden characters",
    "CSM-C035": "ecosystem cannot be resolved on this host",
    "CSM-C036": "import refused",
    "CSM-C037": "import widens what the importer states",
    "CSM-C038": "profile does not allow this",
    "CSM-C039": "undeclared or unusable tool",
    "CSM-C040": "plan violates an invariant",
    "CSM-C041": "plan cannot be read",
    "CSM-C042": "stage that does nothing for the outcome",
    "CSM-C043": "fallback or route without an end",
    "CSM-C044": "suppression without a rule, a reason or a date to come",
    "CSM-C045": "pattern that backtracks or cannot be run in linear time",
    "CSM-C046": "schema over budget",
    "CSM-C047": "approval that nobody can give",
    "CSM-C048": "shards or retry that cannot work",
    "CSM-C049": "sink lacks a setting",
    "CSM-C050": "schema that nothing satisfies",
    "CSM-C051": "network that no rule may open",
    "CSM-C052": "trusted authority cannot be used",
    "CSM-C053": "fallback or route to another wire format",
    "CSM-C060": "tool is not pinned",
    "CSM-C061": "pins cannot be read",
    "CSM-C062": "tool name that is not plain, or that looks like another",
    "CSM-C063": "guard that cannot hold",
    "CSM-C064": "bounds by a history that nobody has signed",
    "CSM-C065": "probes that cannot be read, or that tell nothing",
    # proxy
    "CSM-P001": "malformed proxy request",
    "CSM-P002": "request head too large or too slow",
    "CSM-P003": "destination not allowed",
    "CSM-P004": "destination written as an IP address",
    "CSM-P005": "destination resolves to a forbidden address",
    "CSM-P006": "destination does not resolve or answer",
    "CSM-P007": "tunnel without a TLS ClientHello for the allowed host",
    "CSM-P008": "Host header and target differ",
    "CSM-P009": "method or path not allowed",
    "CSM-P010": "protocol not allowed",
    "CSM-P011": "too many connections",
    "CSM-P012": "egress quota exhausted",
    "CSM-P013": "TLS with the client failed",
    "CSM-P014": "destination does not prove who it is",
    "CSM-P015": "destination sent a secret back",
    "CSM-P019": "internal failure at a door; denied",
    "CSM-P020": "LLM route not allowed",
    "CSM-P021": "malformed LLM request",
    "CSM-P022": "model not allowed",
    "CSM-P023": "budget exhausted",
    "CSM-P024": "LLM request too large",
    "CSM-P025": "provider failed",
    "CSM-P026": "provider answered as another model",
    "CSM-P027": "stream outran its reservation",
    "CSM-P028": "no output ceiling or price",
    "CSM-P029": "provider answered without a usable body",
    "CSM-P030": "rate limit of the stage",
    "CSM-P031": "provider is left alone for a while",
    "CSM-P032": "call that was not recorded",
    # gateway
    "CSM-G001": "malformed MCP request",
    "CSM-G002": "MCP request too large",
    "CSM-G003": "unknown MCP server",
    "CSM-G004": "MCP method not allowed",
    "CSM-G005": "tool, resource or prompt not allowed",
    "CSM-G006": "arguments do not fit the tool's schema",
    "CSM-G007": "wrong Host or Origin",
    "CSM-G008": "unsupported MCP protocol version",
    "CSM-G009": "write quota of the stage exhausted",
    "CSM-G010": "write buffer full",
    "CSM-G011": "too many refused requests; the door is closed",
    "CSM-G012": "the write buffer cannot be opened or written",
    "CSM-G013": "tool differs from its pin",
    "CSM-G014": "tool server failed",
    "CSM-G015": "tool result cut or cleaned",
    "CSM-G016": "too many tool calls",
    "CSM-G017": "argument outside of its guard",
    "CSM-G019": "internal failure at the gateway; denied",
    # writes
    "CSM-W001": "record does not fit the schema",
    "CSM-W002": "quota exceeded",
    "CSM-W003": "value out of bounds",
    "CSM-W004": "duplicate record",
    "CSM-W005": "secret in a record",
    "CSM-W006": "record cannot be decoded strictly",
    "CSM-W007": "the buffer's hash chain is broken",
    "CSM-W008": "batch rejected because of another record",
    "CSM-W009": "a check failed to run; rejected",
    "CSM-W010": "sink cannot be written",
    "CSM-W011": "hidden or deceiving characters",
    "CSM-W012": "link or active content",
    "CSM-W013": "personal data",
    "CSM-W014": "set drifts from its history",
    "CSM-W015": "refers to a record that is not written",
    "CSM-W016": "it is not known whether a write was made",
    "CSM-W017": "write cannot be taken back",
    "CSM-W018": "approval wanted, or void",
    "CSM-W019": "internal failure in customs",
    "CSM-W020": "applying broke off",
    "CSM-W021": "source outside of the folder that the plan names",
    "CSM-W022": "text that a model will be evaluated by",
    "CSM-W030": "patch without one reading",
    "CSM-W031": "patch of a path that it may not touch",
    "CSM-W032": "patch over its bounds",
    "CSM-W033": "title that is no line, or that switches checks off",
    # run
    "CSM-R001": "no Docker engine",
    "CSM-R002": "trusted image missing",
    "CSM-R003": "component did not become ready",
    "CSM-R004": "component died",
    "CSM-R005": "stage failed",
    "CSM-R006": "stage proposed nothing",
    "CSM-R007": "stage timed out",
    "CSM-R008": "artifact refused",
    "CSM-R009": "secret not available",
    "CSM-R010": "slice refused",
    "CSM-R011": "event log broken",
    "CSM-R012": "unknown run",
    "CSM-R013": "input or policy changed since compile",
    "CSM-R014": "run interrupted",
    "CSM-R015": "stage not started",
    "CSM-R016": "image differs from the plan",
    "CSM-R017": "set-up failed",
    "CSM-R018": "usage",
    "CSM-R019": "internal error",
    "CSM-R020": "report of the stage",
    "CSM-R021": "plan needs what this version cannot enforce",
    "CSM-R022": "plan widens what was approved",
    "CSM-R023": "run without a recording",
    "CSM-R024": "budget of the day exhausted",
    "CSM-R025": "proposed file cannot be taken",
    "CSM-R026": "run cannot be moved so",
    "CSM-R027": "record of the run is incomplete",
    "CSM-R029": "somebody drives the run",
    # lineage
    "CSM-L001": "the student shares an initial checkpoint with a teacher",
    "CSM-L002": "unknown provenance",
    "CSM-L003": "unknown student",
    "CSM-L004": "model alias that moves",
    "CSM-L005": "forged record",
    "CSM-L006": "the student's root differs from the registry",
    "CSM-L007": "exception is not valid",
    "CSM-L008": "exception expired",
    "CSM-L009": "exception out of scope",
    "CSM-L010": "exception with too few approvers",
    "CSM-L011": "registry entry is not valid",
}
"""Every code with its short title, which is also its heading in docs/errors.md."""


class CasemateError(Exception):
    """A refusal or failure with a code, a place and a hint.

    `code` is a key of `CODES`; `place` reads `file:line:column` or names a component; `exit_code` is what the
    command line returns when nobody handles it.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        place: str | None = None,
        hint: str | None = None,
        exit_code: ExitCode = ExitCode.INTERNAL,
    ) -> None:
        if code not in CODES:
            raise KeyError(code)
        self.code, self.message, self.place, self.hint = code, message, place, hint
        self.exit_code = exit_code
        super().__init__(self.render())

    def render(self) -> str:
        """The error as three lines: what, where, what to do."""
        lines = [f"{self.code}: {self.message}"]
        if self.place:
            lines.append(f"  at: {self.place}")
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)


def denial(
    code: str, denied: str, *, hint: str, allowed: list[str] | None = None, **more: str | int
) -> dict[str, object]:
    """The one shape in which every door tells an agent what is refused and what is allowed instead."""
    body = {"code": code, "message": CODES[code], "denied": denied, **more, "allowed": allowed or [], "hint": hint}
    return {"error": body}
