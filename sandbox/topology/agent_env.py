"""What an agent finds in its cell: its environment, whom it trusts, and where its tools are. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence

from policies.cells import parted
from policies.plan import EgressRule, Plan, Stage

CA_BUNDLE, TRUST_STORE, TRUST_STORE_PASSWORD = "ca.pem", "truststore.p12", "changeit"
"""Files in /casemate of a cell that must trust the firewall; the password is the one that Java programs expect."""

PLACEHOLDER_KEY = "casemate-placeholder-not-a-key"


def agent_env(run: str, cell: str) -> dict[str, str]:
    """Return the environment of a cell's agent: where the doors are, and placeholders where clients insist on a key."""
    llm = "http://127.0.0.1:4000"
    stage, shard = parted(cell)
    return {
        "HOME": "/workspace",
        "TMPDIR": "/tmp",  # noqa: S108
        "CASEMATE_RUN": run,
        "CASEMATE_STAGE": stage,
        **({"CASEMATE_SHARD": str(shard)} if shard is not None else {}),
        "OPENAI_BASE_URL": f"{llm}/v1",
        "OPENAI_API_KEY": PLACEHOLDER_KEY,
        "ANTHROPIC_BASE_URL": llm,
        "ANTHROPIC_API_KEY": PLACEHOLDER_KEY,
        "GOOGLE_GEMINI_BASE_URL": llm,
        "GEMINI_API_KEY": PLACEHOLDER_KEY,
        "GOOGLE_API_KEY": PLACEHOLDER_KEY,
        **proxy_env(),
    }


def proxy_env() -> dict[str, str]:
    """Return the variables by which programs learn of the egress door."""
    egress, near = "http://127.0.0.1:3128", "127.0.0.1,localhost"
    return {
        "HTTP_PROXY": egress,
        "HTTPS_PROXY": egress,
        "http_proxy": egress,
        "https_proxy": egress,
        "NO_PROXY": near,
        "no_proxy": near,
    }


def trusts(plan: Plan, rules: Sequence[EgressRule]) -> bool:
    """Whether programs that connect by `rules` must trust more than the system's authorities."""
    return any(rule.inspect for rule in rules) or bool(plan.trust and rules)


def trust_env() -> dict[str, str]:
    """Return the variables by which programs learn whom to trust; each reads its own."""
    bundle = f"/casemate/{CA_BUNDLE}"
    names = (
        "SSL_CERT_FILE",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "GIT_SSL_CAINFO",
        "NODE_EXTRA_CA_CERTS",
        "PIP_CERT",
        "npm_config_cafile",
        "AWS_CA_BUNDLE",
        "CARGO_HTTP_CAINFO",
        "DENO_CERT",
    )
    store = f"-Djavax.net.ssl.trustStore=/casemate/{TRUST_STORE} -Djavax.net.ssl.trustStoreType=PKCS12"
    return {
        **dict.fromkeys(names, bundle),
        "JAVA_TOOL_OPTIONS": f"{store} -Djavax.net.ssl.trustStorePassword={TRUST_STORE_PASSWORD}",
        "NODE_USE_ENV_PROXY": "1",
    }


def mcp_config(stage: Stage) -> bytes:
    """Return /casemate/mcp.json, in the form that agent programs read: the write server, and the stage's tools."""
    names = ["writes", *sorted(stage.tools)]
    servers = {name: {"type": "http", "url": f"http://127.0.0.1:5000/mcp/{name}"} for name in names}
    return json.dumps({"mcpServers": servers}, indent=2).encode() + b"\n"
