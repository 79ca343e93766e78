"""A client for a sink with a URL: through a tunnel that leads to its host alone, following nothing, keeping nothing."""

from __future__ import annotations

from base64 import b64encode
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path

import httpx

from gateway.tls import context
from policies.plan import Output
from policies.slices import sink_door

SECONDS = 60.0


def client(
    output: Output, secret: str | None, trust: list[str], root: Path, tunnel: str | None = None, scheme: str = "Bearer"
) -> httpx.Client:
    """Return a client that proves itself by the sink's secret; it connects with the first request.

    `tunnel`: the name of another door than that of the sink. `scheme`: what stands before a token.
    """
    headers = {"Accept-Encoding": "identity"}
    if secret is not None:
        basic = output.target.get("auth") == "basic"
        proof = f"Basic {b64encode(secret.encode()).decode()}" if basic else f"{scheme} {secret}"
        headers["Authorization"] = proof
    door = str(root / "doors" / (tunnel or sink_door(output.name)) / "up.sock")
    return httpx.Client(
        transport=httpx.HTTPTransport(uds=door, verify=context(trust), retries=0),
        headers=headers,
        follow_redirects=False,
        trust_env=False,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        timeout=SECONDS,
    )
