"""What the tests of both processes share: plans, births, event logs, doors in this process and in their own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from policies.canonical import digest
from policies.cells import FACT
from policies.events import EventWriter
from policies.plan import (
    Budget,
    EgressQuota,
    EgressRule,
    HeaderCredential,
    Limits,
    Model,
    Plan,
    Price,
    SecretBinding,
    Source,
    Stage,
    encode,
)
from policies.slices import Birth, FirewallSlice, LlmSlice, seal, slices
from policies.vocabulary import Component
from proxy.egress.addresses import Outside
from proxy.egress.app import firewall
from proxy.egress.issuer import Issuer
from proxy.llm.app import llm_proxy
from proxy.llm.call import World
from proxy.start import Events, Roots

REPOSITORY = Path(__file__).resolve().parents[2]
KEY = "sk-real-0123456789-canary"
PLENTY = 2**40
T = TypeVar("T")


def run(scenario: Coroutine[Any, Any, T], seconds: float = 30) -> T:
    """Run one conversation to its end, or fail: a test never hangs."""

    async def bounded() -> T:
        async with asyncio.timeout(seconds):
            return await scenario

    return asyncio.run(bounded())


def rule(
    host: str, port: int = 443, scheme: Literal["https", "http", "tcp"] = "https", methods: Sequence[str] = (),
    paths: Sequence[str] = (), *, inspect: bool = False, quota: EgressQuota | None = None,
    credential: HeaderCredential | None = None,
) -> EgressRule:  # fmt: skip
    return EgressRule(
        host=host,
        port=port,
        scheme=scheme,
        inspect=inspect,
        methods=list(methods),
        paths=list(paths),
        place=f"w.yaml:1:1 ({host}:{port})",
        credential=credential,
        quota=quota,
    )


def limits(calls: int = PLENTY, tokens: int = PLENTY, usd_nanos: int = PLENTY) -> Limits:
    return Limits(
        cpu_millis=1000, memory=2**29, pids=64, disk=2**28, wall_s=60, calls=calls, tokens=tokens, usd_nanos=usd_nanos
    )


TEACHER = Model(
    alias="teacher", provider="local", model="tiny-model", host="tiny", port=80, base_path="/v1", local="tiny",
    secret=None, price=Price(input=10, output=20), max_output_tokens=50,
)  # fmt: skip
REMOTE = Model(
    alias="remote", provider="openai", model="gpt-x", host="llm.example.com", port=443, base_path="/v1", local=None,
    secret="llm_key", price=Price(input=100, output=400), max_output_tokens=64,
)  # fmt: skip


def make_plan(
    *,
    egress: Sequence[EgressRule] = (),
    models: Sequence[Model] = (TEACHER, REMOTE),
    stage_models: Sequence[str] = ("remote", "teacher"),
    stage_limits: Limits | None = None,
    budget: Budget | None = None,
) -> Plan:
    def stage(name: str, rules: Sequence[EgressRule], aliases: Sequence[str]) -> Stage:
        return Stage(
            name=name, image="agent", run=["true"], env={}, needs=[], inputs=[], models=list(aliases),
            egress=list(rules), outputs=[], limits=stage_limits or limits(),
        )  # fmt: skip

    zero = digest(b"")
    return Plan(
        casemate=1, name="test", task="one", source=Source(workflow="w.yaml", digest=zero, files={}),
        budget=budget or Budget(usd_nanos=PLENTY, tokens=PLENTY, calls=PLENTY, wall_s=60),
        secrets=[
            SecretBinding(name="llm_key", origin="env", key="K", holder="llm", destination="llm.example.com")
        ],
        models=list(models), images=[], inputs=[],
        stages=[stage("other", [], []), stage("work", egress, stage_models)], outputs=[],
    )  # fmt: skip


def birth_of(plan: Plan, component: Component, run_name: str = "run-1") -> Birth:
    part = encode(slices(plan)[component]).decode()
    secrets = {"llm_key": KEY} if component is Component.LLM else {}
    cells = {FACT: " ".join(cell for stage in plan.stages for cell in stage.cells)}
    return Birth(run=run_name, seal=seal(plan), slice=part, secrets=secrets, facts=cells)


class Log:
    """An event log in memory, which can be made to fail."""

    def __init__(self, component: Component) -> None:
        self.lines: list[dict[str, Any]] = []
        self.full = False
        self.events = Events(EventWriter(component, self._write))

    def _write(self, line: bytes) -> None:
        if self.full:
            raise OSError("no space left on device")
        self.lines.append(json.loads(line))

    def named(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == event]

    @property
    def denied(self) -> list[str]:
        return [line["rule"] for line in self.lines if line["verdict"] == "deny"]


class Names:
    """A resolver at the outermost seam: it answers what the test says, and counts who asked."""

    def __init__(self, **answers: list[str]) -> None:
        self.answers, self.asked = {k.replace("_", "."): v for k, v in answers.items()}, list[str]()

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        if host not in self.answers:
            raise OSError("name not known")
        return self.answers[host]


def loopback(address: str) -> bool:
    """The address policy of tests: loopback is the internet."""
    return address == "127.0.0.1"


@asynccontextmanager
async def firewall_for(
    plan: Plan, root: Path, names: Names | None = None, *, permitted: Callable[[str], bool] = loopback,
    trust: ssl.SSLContext | None = None, issuer: Issuer | None = None, log: Log | None = None,
    secrets: Mapping[str, str] | None = None,
) -> AsyncIterator[Log]:  # fmt: skip
    log = log or Log(Component.FIREWALL)
    part = slices(plan)[Component.FIREWALL]
    assert isinstance(part, FirewallSlice)
    outside = Outside(resolve=names or Names(), permitted=permitted, trust=trust)
    facts = birth_of(plan, Component.FIREWALL).facts
    async with firewall(part, Roots.under(root), log.events, outside, issuer, secrets, facts):
        yield log


@asynccontextmanager
async def llm_for(
    plan: Plan, root: Path, *, context: Any = None, log: Log | None = None, world: World | None = None
) -> AsyncIterator[Log]:
    log = log or Log(Component.LLM)
    world = world or World(draw=lambda: 0.0, sleep=at_once)
    part = slices(plan)[Component.LLM]
    assert isinstance(part, LlmSlice)
    async with llm_proxy(part, birth_of(plan, Component.LLM), Roots.under(root), log.events, context, world):
        yield log


async def at_once(seconds: float) -> None:
    """Waits no time, but lets others go on."""
    await asyncio.sleep(0)


async def converse(path: Path, *sends: bytes) -> bytes:
    """Say everything to a door, then listen to the end."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        for data in sends:
            writer.write(data)
        return await reader.read(-1)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


def code_of(response: bytes) -> str:
    """The error code of a denial."""
    head, _, body = response.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 "), response
    return str(json.loads(body)["error"]["code"])


class Process:
    """One trusted process, as an engine starts it."""

    def __init__(self, component: str, root: Path, message: bytes) -> None:
        command = [sys.executable, "-m", "proxy", component, "--root", str(root)]
        environment = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
        self.child = subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        assert self.child.stdin is not None
        self.child.stdin.write(message)
        self.child.stdin.close()
        self.child.stdin = None

    def event(self) -> dict[str, Any]:
        """Wait for the next event; an empty object when the process has ended."""
        assert self.child.stdout is not None
        line = self.child.stdout.readline()
        return dict(json.loads(line)) if line else {}

    def stop(self) -> tuple[int, list[dict[str, Any]], str]:
        """Ask the process to stop; return exit code, remaining events, and its diagnostics."""
        self.child.send_signal(signal.SIGTERM)
        return self.end()

    def end(self) -> tuple[int, list[dict[str, Any]], str]:
        out, err = self.child.communicate(timeout=30)
        return self.child.returncode, [json.loads(line) for line in out.splitlines()], err.decode()


@contextmanager
def started(component: str, root: Path, birth: Birth) -> Iterator[Process]:
    """A process that is ready; killed in the end if the test did not stop it."""
    process = Process(component, root, msgspec.json.encode(birth))
    try:
        ready = process.event()
        assert ready.get("event") == "component.ready", process.end()
        yield process
    finally:
        if process.child.poll() is None:
            process.child.kill()
            process.child.communicate()
