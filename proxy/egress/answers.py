"""What a stage reads when the firewall refuses, and what the event log reads. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence

from policies.errors import denial
from policies.events import Attribute, clean
from policies.plan import EgressRule
from proxy.egress.decide import destinations
from proxy.egress.types import EgressRequest, Refused

_STATUS = {
    "CSM-P001": "400 Bad Request",
    "CSM-P002": "431 Request Header Fields Too Large",
    "CSM-P006": "502 Bad Gateway",
    "CSM-P011": "503 Service Unavailable",
    "CSM-P012": "429 Too Many Requests",
    "CSM-P014": "502 Bad Gateway",
    "CSM-P015": "502 Bad Gateway",
    "CSM-P019": "500 Internal Server Error",
}
_HINTS = {
    "CSM-P001": "send CONNECT host:port, or an absolute http:// URL",
    "CSM-P002": "send a smaller request head, at once",
    "CSM-P004": "use the host's name; addresses are never allowed",
    "CSM-P005": "only public addresses can be reached",
    "CSM-P006": "the destination is allowed but does not answer; try later",
    "CSM-P008": "Host header and target must name the same host and port",
    "CSM-P010": "only https tunnels and plain http are spoken here",
    "CSM-P009": "use a method and a path that the rule allows; a path must have one reading",
    "CSM-P012": "the quota of this destination is used up for this stage",
    "CSM-P015": "ask for an answer that is not compressed",
    "CSM-P014": "the destination is allowed but its certificate does not verify",
    "CSM-P011": "close connections that are no longer used",
}
_HINT = "add an egress rule to the stage in the workflow, or use an allowed destination"


def refusal(refused: Refused, rules: Sequence[EgressRule], *, body: bool = True) -> bytes:
    """Return the whole HTTP response that tells a stage what was refused and what it may do instead."""
    shape = denial(
        refused.code,
        "egress",
        hint=_HINTS.get(refused.code, _HINT),
        allowed=destinations(rules),
        host=clean(refused.host, 255),
    )
    data = json.dumps(shape).encode()
    head = (
        f"HTTP/1.1 {_STATUS.get(refused.code, '403 Forbidden')}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (data if body else b"")


def attributes(request: EgressRequest | None, refused: Refused | None = None) -> dict[str, Attribute]:
    """Return the attributes of a decision's event; the path stays out, as it may carry data of the agent."""
    if request is None:
        return {"server.address": refused.host} if refused is not None and refused.host else {}
    return {"server.address": request.host, "server.port": request.port, "http.request.method": request.method}
