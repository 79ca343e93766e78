"""Plain HTTP, through mitmproxy as a library. The only file that imports it.

mitmproxy's own addon manager logs an exception in a hook and goes on: the request passes. So hooks are not run by it
but by `GuardedConnection.handle_hook`, which every hook of every kind goes through, and where an exception, an unknown
hook and a refusal all mean the same: the flow is killed, the connection is closed, and an event says why. WebSocket,
raw TCP, UDP and DNS are unknown hooks here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import structlog
from mitmproxy import connection, flow, http, options
from mitmproxy.addons import core, disable_h2c, proxyserver
from mitmproxy.master import Master
from mitmproxy.proxy import commands, layers, mode_specs, server_hooks
from mitmproxy.proxy.layers.http import HTTPMode
from mitmproxy.proxy.layers.http._hooks import HttpErrorHook, HttpResponseHook
from mitmproxy.proxy.mode_servers import ProxyConnectionHandler

from policies.events import EventLogError
from policies.plan import EgressRule
from policies.vocabulary import EventName, Verdict
from proxy.egress.addresses import Outside
from proxy.egress.answers import attributes, refusal
from proxy.egress.decide import decide
from proxy.egress.framing import Requests
from proxy.egress.normalise import normalise
from proxy.egress.relay import IDLE_SECONDS, Source, Traffic
from proxy.egress.types import EgressRequest, Head, Refused
from proxy.start import Events

KNOWN_HOOKS = frozenset(
    {
        "client_connected",
        "client_disconnected",
        "requestheaders",
        "request",
        "server_connect",
        "server_connected",
        "server_connect_error",
        "server_disconnected",
        "responseheaders",
        "response",
        "error",
    }
)
MAX_RESPONSE_HEAD = 64 * 1024

_log = structlog.get_logger()


class _Writer:
    """The cell's end of a Unix socket, which has no address; mitmproxy wants one."""

    def __init__(self, writer: asyncio.StreamWriter, traffic: Traffic) -> None:
        self._writer, self._traffic = writer, traffic

    def get_extra_info(self, name: str, default: object = None) -> object:
        return ("cell", 0) if name in ("peername", "sockname") else default

    def write(self, data: bytes) -> None:
        self._traffic.received += len(data)
        self._writer.write(data)

    def __getattr__(self, name: str) -> Any:  # drain, close, is_closing, write_eof, wait_closed
        return getattr(self._writer, name)


class _ResponseReader:
    """An upstream's bytes, which end when a response head does not: mitmproxy would take one of any size."""

    def __init__(self, reader: asyncio.StreamReader, link: GuardedConnection) -> None:
        self._reader, self._link = reader, link
        self._head, self._complete = b"", False  # one connection serves one request, so there is one head

    async def read(self, size: int) -> bytes:
        data = await self._reader.read(size)
        if not self._complete:
            self._head += data[: MAX_RESPONSE_HEAD + 1]
            self._complete = b"\n\r\n" in self._head or b"\n\n" in self._head
            if not self._complete and len(self._head) > MAX_RESPONSE_HEAD:
                self._link.fail(Refused("CSM-P006", "the upstream's response head is too large"))
                return b""
        return data


class Guard:
    """The addon that decides; its connections are found by the id that mitmproxy gave them."""

    def __init__(self, outside: Outside) -> None:
        self.outside, self.links = outside, dict[str, GuardedConnection]()

    async def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Judge what mitmproxy read, which must be what the front read; then resolve and pin."""
        link = self.links[flow.client_conn.id]
        target = f"{flow.request.scheme}://{flow.request.host}:{flow.request.port}{flow.request.path}"
        head = Head(
            method=flow.request.method,
            target=target,
            version="HTTP/1.1",
            headers=tuple((k.decode("latin-1").lower(), v.decode("latin-1")) for k, v in flow.request.headers.fields),
        )
        request = normalise(head)
        if request != link.expected:
            raise Refused("CSM-P008", "the request was read in two ways", host=request.host)
        decision = decide(request, link.rules)
        if decision.code is not None:
            raise Refused(decision.code, decision.reason, host=request.host)
        address = await self.outside.pin(request.host, request.port, decision.networks)
        link.events(
            EventName.EGRESS_DECIDED,
            stage=link.stage,
            verdict=Verdict.ALLOW,
            rule=decision.rule,
            reason=decision.reason,
            attrs={**attributes(request), "network.peer.address": address},
        )
        link.pinned = (request.host, request.port, address)
        link.last_rule = decision.rule
        flow.request.stream = True

    def server_connect(self, data: server_hooks.ServerConnectionHookData) -> None:
        """Send the connection to the address that was checked, and close those of earlier requests."""
        link = self.links[data.client.id]
        if link.pinned is None or data.server.address != link.pinned[:2]:
            raise Refused("CSM-P008", "a connection that no decision asked for")
        data.server.address = (link.pinned[2], link.pinned[1])
        link.close_others(data.server)

    def server_connected(self, data: server_hooks.ServerConnectionHookData) -> None:
        """Bound what the upstream may send before its response begins."""
        self.links[data.client.id].bound_response_head(data.server)

    def server_connect_error(self, data: server_hooks.ServerConnectionHookData) -> None:
        """Tell the cell, in the one shape, that the allowed destination does not answer."""
        self.links[data.client.id].fail(Refused("CSM-P006", f"no connection: {data.server.error}"))

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Let the response through chunk by chunk; never a switch of protocols."""
        if flow.response is None or flow.response.status_code == 101:
            raise Refused("CSM-P010", "the upstream wants to switch protocols", host=flow.request.host)
        self.links[flow.client_conn.id].answering = True
        flow.response.stream = True

    def error(self, flow: http.HTTPFlow) -> None:
        """Tell the cell, in the one shape, that the upstream failed."""
        link = self.links[flow.client_conn.id]
        link.fail(Refused("CSM-P006", flow.error.msg if flow.error else "the upstream failed", host=flow.request.host))


class GuardedConnection(ProxyConnectionHandler):
    """One connection of a cell inside mitmproxy, whose every hook fails closed."""

    def __init__(self, proxy: PlainProxy, stage: str, rules: Sequence[EgressRule], writer: _Writer) -> None:
        mode = mode_specs.ProxyMode.parse("regular")
        super().__init__(proxy.master, None, writer, proxy.master.options, mode)  # type: ignore[no-untyped-call]
        self.layer = layers.HttpLayer(self.layer.context, HTTPMode.regular)
        self.stage, self.rules, self.events = stage, rules, proxy.events
        self.writer, self.requests = writer, None
        self.expected: EgressRequest | None = None
        self.pinned: tuple[str, int, str] | None = None
        self.denied, self.broken, self.last_rule = False, None, None
        self.answering = False

    requests: Requests | None
    broken: Refused | None
    last_rule: str | None

    async def handle_hook(self, hook: commands.StartHook) -> None:
        """Run a hook in every addon; an exception, whatever it is, is a denial."""
        with self.timeout_watchdog.disarm():
            try:
                self._refuse_hook(hook)
                for addon in self.master.addons.chain:
                    await self.master.addons.invoke_addon(addon, hook)
            except Refused as refused:
                self._deny(hook.args(), refused)
            except EventLogError:
                self._deny(hook.args(), Refused("CSM-P019", "the event log is broken"))
            except Exception as error:  # noqa: BLE001 - a hook that raises is a denial, of every kind
                _log.error("hook failed", hook=hook.name, exc_info=error)
                self._deny(hook.args(), Refused("CSM-P019", f"{hook.name}: {type(error).__name__}"))

    def _refuse_hook(self, hook: commands.StartHook) -> None:
        if self.denied:
            raise Refused("CSM-P019", "after a denial")
        if hook.name not in KNOWN_HOOKS:
            raise Refused("CSM-P010", f"{hook.name} is not spoken here")

    async def hook_task(self, hook: commands.StartHook) -> None:
        """Run a blocking hook; when it was the last of a request, the next request may be read."""
        await super().hook_task(hook)
        if isinstance(hook, HttpResponseHook | HttpErrorHook) and self.requests is not None:
            self.requests.answered()

    def _deny(self, about: Sequence[object], refused: Refused) -> None:
        kill(about)
        if self.denied:
            return
        self.denied = True
        try:
            self.events(
                EventName.EGRESS_DECIDED,
                stage=self.stage,
                verdict=Verdict.DENY,
                rule=refused.code,
                reason=refused.reason,
                attrs=attributes(self.expected, refused),
            )
        except EventLogError:
            _log.error("event log broken")
        self._answer_and_close(refused)

    def begin(self, request: EgressRequest | None) -> None:
        """Expect a request, or none yet: nothing was sent to the cell for it, and no address is pinned for it."""
        self.expected, self.pinned, self.answering = request, None, False

    def refuse(self, refused: Refused) -> None:
        """Deny a request that never reached mitmproxy, because its head was refused."""
        self._deny([], refused)

    def fail(self, refused: Refused) -> None:
        """End a connection whose request was allowed but could not be served."""
        if not self.denied:
            self.denied, self.broken = True, refused
            self._answer_and_close(refused)

    def _answer_and_close(self, refused: Refused) -> None:
        if not self.answering and not self.writer.is_closing():
            self.writer.write(refusal(refused, self.rules))
        for link, transport in list(self.transports.items()):
            if transport.handler is not None:
                self.close_connection(link)

    def cancel(self) -> None:
        """End whatever is still open."""
        for transport in self.transports.values():
            if transport.handler is not None:
                transport.handler.cancel()

    def close_others(self, server: connection.Server) -> None:
        """Close upstream connections of earlier requests; pinned ones are never used again."""
        for link, transport in list(self.transports.items()):
            if isinstance(link, connection.Server) and link is not server and transport.handler is not None:
                self.close_connection(link)

    def bound_response_head(self, server: connection.Server) -> None:
        """Put a limit between an upstream and mitmproxy."""
        transport = self.transports[server]
        transport.reader = _ResponseReader(transport.reader, self)  # type: ignore[assignment,arg-type]


def kill(about: Sequence[object]) -> None:
    """Mark what a hook is about so that mitmproxy's layers do not go on with it."""
    for data in about:
        match data:
            case flow.Flow():
                data.error = flow.Error(flow.Error.KILLED_MESSAGE)
            case server_hooks.ServerConnectionHookData():
                data.server.error = "denied"
            case connection.Client():
                data.error = "denied"
            case _:
                pass  # nothing to mark: the connection is closed under it


class PlainProxy:
    """mitmproxy, with nothing in it but what plain HTTP needs. `addons` is a seam for tests."""

    def __init__(self, outside: Outside, events: Events, addons: Sequence[object] = ()) -> None:
        self.events, self.guard = events, Guard(outside)
        self.master = Master(options.Options())
        for addon in (core.Core(), proxyserver.Proxyserver(), disable_h2c.DisableH2C(), self.guard, *addons):  # type: ignore[no-untyped-call]
            self.master.addons.add(addon)  # type: ignore[no-untyped-call]
        self.master.options.update(  # type: ignore[no-untyped-call]
            mode=[],
            connection_strategy="lazy",
            validate_inbound_headers=True,
            rawtcp=False,
            websocket=False,
            http2=False,
            http3=False,
            tcp_timeout=int(IDLE_SECONDS),
        )

    async def serve(
        self,
        inner: tuple[Source, asyncio.StreamWriter],
        first: tuple[Head, EgressRequest],
        stage: str,
        rules: Sequence[EgressRule],
    ) -> None:
        """Serve one connection, whose first request has been read and allowed, to its end."""
        traffic = Traffic()
        link = GuardedConnection(self, stage, rules, _Writer(inner[1], traffic))

        link.requests = Requests(inner[0], first, link.begin, link.refuse, traffic)
        link.transports[link.client].reader = link.requests  # type: ignore[assignment]
        self.guard.links[link.client.id] = link
        try:
            await link.handle_client()
        finally:
            link.cancel()
            del self.guard.links[link.client.id]
            self.events(
                EventName.EGRESS_CLOSED,
                stage=stage,
                rule=link.broken.code if link.broken else link.last_rule,
                reason=link.broken.reason if link.broken else None,
                attrs={
                    **attributes(first[1]),
                    "casemate.bytes.out": traffic.sent,
                    "casemate.bytes.in": traffic.received,
                },
            )
