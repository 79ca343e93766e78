"""Those that the arena compares, each started as its own manual has it; ours as an engine starts them."""

from __future__ import annotations

import base64
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from policies.plan import Budget, EgressRule, Limits, Model, Plan, Price, SecretBinding, Source, Stage, encode
from policies.slices import Birth, seal, slices
from policies.vocabulary import Component
from tests.bench.load import Way, cpu_s
from tests.bench.upstream import MODEL

ROOT = Path("/tmp/arena")
LLM, WEB = "llm.example.com", "web.example.com"
KEY = "sk-benchmark"
PLENTY = 2**50
ZERO = "sha256:" + "0" * 64


@dataclass
class Contestant:
    """Something between a client and the upstream. `pids` are its processes; `start_s`, `start_cpu` what it took."""

    name: str
    way: Way
    pids: list[int] = field(default_factory=list)
    start_s: float = 0
    start_cpu: float = 0
    host: str = LLM


def own_address() -> str:
    """Return the container's address on its bridge."""
    return socket.gethostbyname(socket.gethostname())


@contextmanager
def running(command: list[str], ready: Callable[[], bool], **more: object) -> Iterator[tuple[int, float, float]]:
    """Run a process in a session of its own; yield pid, seconds and CPU seconds until it was ready."""
    began = time.perf_counter()
    log = (ROOT / f"{Path(command[0]).name}-{time.monotonic_ns()}.log").open("wb")
    process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, **more)  # type: ignore[call-overload]
    try:
        while not ready():
            if process.poll() is not None or time.perf_counter() - began > 90:
                raise RuntimeError(f"{command[:4]} did not start:\n{Path(log.name).read_text()[-2000:]}")
            time.sleep(0.01)
        yield process.pid, time.perf_counter() - began, cpu_s([process.pid])
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def listens(port: int, host: str = "127.0.0.1") -> Callable[[], bool]:
    """Return a test whether somebody accepts connections."""

    def test() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((host, port)) == 0

    return test


@contextmanager
def nginx(ip: str) -> Iterator[Contestant]:
    config = ROOT / "nginx.conf"
    config.write_text(f"""
worker_processes 1; daemon off; pid /tmp/nginx.pid; error_log stderr crit; user root;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 1000000;
upstream u {{ server {ip}:443; keepalive 256; keepalive_requests 1000000; }}
server {{ listen 127.0.0.1:8001 backlog=1024; location / {{
  proxy_pass https://u; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host {LLM};
  proxy_set_header Authorization "Bearer {KEY}"; proxy_buffering off; proxy_ssl_server_name on; proxy_ssl_name {LLM};
  proxy_ssl_verify on; proxy_ssl_trusted_certificate {ROOT}/ca.pem; }} }} }}
""")
    with running(["nginx", "-c", str(config)], listens(8001)) as (pid, took, cpu):
        yield Contestant("nginx, header swap", Way(address=("127.0.0.1", 8001)), [pid], took, cpu)


@contextmanager
def litellm(ip: str) -> Iterator[Contestant]:
    config = ROOT / "litellm.yaml"
    config.write_text(f"""
model_list:
  - model_name: teacher
    litellm_params: {{model: openai/{MODEL}, api_base: "https://{LLM}/v1", api_key: {KEY}}}
litellm_settings: {{max_budget: 1000, budget_duration: 1d, telemetry: false}}
general_settings: {{master_key: sk-client}}
""")
    environment = {
        **os.environ, "PYTHONPATH": "/opt/beside/litellm", "SSL_CERT_FILE": str(ROOT / "ca.pem"), "HOME": "/tmp",
        "LITELLM_MODE": "PRODUCTION", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR",
    }  # fmt: skip
    command = ["python3", "-c", "from litellm import run_server; run_server()", "--config", str(config)]
    command += ["--host", "127.0.0.1", "--port", "8004", "--num_workers", "1"]
    with running(command, listens(8004), env=environment) as (pid, took, cpu):
        yield Contestant("LiteLLM proxy, key and budget", Way(address=("127.0.0.1", 8004)), [pid], took, cpu)


@contextmanager
def mitmdump(ip: str) -> Iterator[Contestant]:
    addon = ROOT / "addon.py"
    addon.write_text("def request(flow):\n    flow.request.headers['authorization'] = 'Bearer x'\n")
    environment = {**os.environ, "PYTHONPATH": "/opt/beside/mitmdump", "HOME": "/tmp"}
    code = "from mitmproxy.tools.main import mitmdump; mitmdump()"
    command = ["python3", "-c", code, "-q", "-s", str(addon), "--listen-host", "127.0.0.1", "-p", "8003"]
    command += ["--set", f"confdir={ROOT}/mitm", "--set", f"ssl_verify_upstream_trusted_ca={ROOT}/ca.pem"]
    with running(command, listens(8003), env=environment) as (pid, took, cpu):
        time.sleep(0.5)
        context = ssl.create_default_context(cafile=f"{ROOT}/mitm/mitmproxy-ca-cert.pem")
        way = Way(address=("127.0.0.1", 8003), connect=f"{WEB}:443", context=context, name=WEB)
        yield Contestant("mitmdump, one addon", way, [pid], took, cpu, WEB)


@contextmanager
def squid(ip: str) -> Iterator[Contestant]:
    config = ROOT / "squid.conf"
    config.write_text(f"""
http_port 127.0.0.1:8002
acl ok dstdomain {WEB}
http_access allow ok
http_access deny all
cache deny all
access_log none
cache_log none
cache_store_log none
pid_filename none
coredump_dir /tmp
max_filedescriptors 4096
""")
    with running(["squid", "-N", "-f", str(config)], listens(8002)) as (pid, took, cpu):
        way = Way(address=("127.0.0.1", 8002), connect=f"{WEB}:443", context=client_context(), name=WEB)
        yield Contestant("squid, tunnel", way, [pid], took, cpu, WEB)


def client_context() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(ROOT / "ca.pem"))


def plan(*, inspect: bool) -> Plan:
    """A plan with one remote model and one host, without ceilings in the way."""
    limits = Limits(
        cpu_millis=1000,
        memory=1 << 30,
        pids=64,
        disk=1 << 28,
        wall_s=600,
        calls=PLENTY,
        tokens=PLENTY,
        usd_nanos=PLENTY,
    )
    near = ["172.16.0.0/12"]
    rule = EgressRule(
        host=WEB, port=443, scheme="https", inspect=inspect, methods=["GET"] if inspect else [],
        paths=["/size"] if inspect else [], place="w.yaml:1:1", addresses=near, quota=None,
    )  # fmt: skip
    model = Model(
        alias="teacher", provider="openai-compatible", model=MODEL, host=LLM, port=443, base_path="/v1", local=None,
        secret="llm_key", price=Price(input=150, output=600), max_output_tokens=4096, addresses=near,
    )  # fmt: skip
    stage = Stage(
        name="work", image="agent", run=["true"], env={}, needs=[], inputs=[], models=["teacher"], egress=[rule],
        outputs=[], limits=limits,
    )  # fmt: skip
    return Plan(
        casemate=1, name="bench", task="one", source=Source(workflow="w.yaml", digest=ZERO, files={}),
        budget=Budget(usd_nanos=PLENTY, tokens=PLENTY, calls=PLENTY, wall_s=600), images=[], inputs=[], outputs=[],
        secrets=[SecretBinding(name="llm_key", origin="env", key="K", holder="llm", destination=LLM)],
        models=[model], stages=[stage], trust=[(ROOT / "ca.pem").read_text()],
    )  # fmt: skip


@contextmanager
def component(name: str, part: Component, of: Plan, root: Path) -> Iterator[tuple[int, float, float, str]]:
    """Start one of our processes as an engine does; yield pid, seconds, CPU seconds, and what it said when ready."""
    secrets = {"llm_key": KEY} if part is Component.LLM else {}
    birth = Birth(run="bench", seal=seal(of), slice=encode(slices(of)[part]).decode(), secrets=secrets)
    events = root / f"{name}.jsonl"
    began = time.perf_counter()
    with events.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "proxy", name, "--root", str(root)], stdin=subprocess.PIPE, stdout=out,
            start_new_session=True,
        )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(msgspec.json.encode(birth))
    process.stdin.close()
    try:
        while b"component.ready" not in events.read_bytes():
            if process.poll() is not None or time.perf_counter() - began > 30:
                raise RuntimeError(f"{name} did not start")
            time.sleep(0.005)
        yield process.pid, time.perf_counter() - began, cpu_s([process.pid]), events.read_text().splitlines()[0]
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def ours(*, inspect: bool) -> Iterator[dict[str, Contestant]]:
    """Relay, llm proxy and firewall; yield the two doors as contestants."""
    root, of = Path(tempfile.mkdtemp(dir=ROOT)), plan(inspect=inspect)
    for folder in ("doors/work", "doors/up-teacher", "models", "state"):
        (root / folder).mkdir(parents=True)
    config = (Path(__file__).resolve().parents[2] / "compose/relay/haproxy.cfg").read_text()
    relay = root / "haproxy.cfg"
    config = config.replace("maxconn 256", "maxconn 1024")
    door = f"{root}/doors/work"
    relay.write_text(config.replace("/doors/egress/", f"{door}/").replace("/doors/llm/", f"{door}/"))
    with (
        component("egress", Component.FIREWALL, of, root) as (firewall, took_f, cpu_f, ready),
        component("llm", Component.LLM, of, root) as (llm, took_l, cpu_l, _),
        running(["haproxy", "-W", "-db", "-f", str(relay)], listens(4000)) as (haproxy, _, _),
    ):
        context = client_context()
        if inspect:
            context.load_verify_locations(
                cadata=base64.b64decode(msgspec.json.decode(ready)["attrs"]["casemate.certificate"])
            )
        way = Way(address=("127.0.0.1", 3128), connect=f"{WEB}:443", context=context, name=WEB)
        kind = "inspected" if inspect else "tunnel"
        yield {
            "llm": Contestant(
                "ours, relay + llm + firewall", Way(address=("127.0.0.1", 4000)), [haproxy, llm, firewall],
                took_l, cpu_l,
            ),
            "llm only": Contestant("ours, llm alone", Way(address=("127.0.0.1", 4000)), [llm], took_l, cpu_l),
            "egress": Contestant(f"ours, relay + firewall, {kind}", way, [haproxy, firewall], took_f, cpu_f, WEB),
            "firewall": Contestant(f"ours, firewall alone, {kind}", way, [firewall], took_f, cpu_f, WEB),
        }  # fmt: skip
