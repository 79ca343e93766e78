"""`python -m gateway serve`, `audit`, `customs`, `apply` and `bridge`: wiring only."""

from __future__ import annotations

import argparse
import gc
import sys
from pathlib import Path

import structlog

from gateway.bridge import bridge
from gateway.start import born, log_to_stderr, told
from policies.errors import CasemateError
from policies.events import EventLogError, EventWriter
from policies.slices import Birth, CustomsSlice, GatewaySlice
from policies.vocabulary import Component


def serve(root: Path, port: int) -> int:
    """Run the agent-facing gateway; return the exit code."""
    # Imported here: the web stack is not in the image of customs, the data stack not in the image of serve. And before
    # the birth message is waited for, so that a process that was started ahead of its run is ready at once.
    import asyncio

    from gateway.serve.server import serve as run

    birth, part = _born()
    for pair in birth.facts.get("doors", "").split():
        # Started before anybody knew its stages: their doors are links to the slots it has.
        door, _, slot = pair.partition("=")
        (root / "doors" / door).symlink_to(root / "slots" / slot)
    return asyncio.run(run(part, root, port, EventWriter(Component.GATEWAY), birth.secrets, birth.facts))


def audit(root: Path) -> int:
    """Write down what every server of the slice offers, and end."""
    import asyncio

    from gateway.serve.servers.contact import contact

    birth, part = _born()
    asyncio.run(contact(part, root, birth.secrets))
    return 0


def _born() -> tuple[Birth, GatewaySlice]:
    birth, part = born(sys.stdin.buffer, Component.GATEWAY, GatewaySlice)
    if birth.secrets.keys() != {server.secret for server in part.servers if server.secret is not None}:
        # This process faces agents; whoever hands it another secret than those of its servers has made a mistake.
        raise CasemateError("CSM-R010", "other secrets than those of its servers", place=Component.GATEWAY.value)
    return birth, part


def customs(root: Path) -> int:
    """Run customs once; return the exit code."""
    from gateway.customs.run import run

    birth, part = born(sys.stdin.buffer, Component.CUSTOMS, CustomsSlice)
    gc.disable()  # rows have no cycles, and looking for them takes as long as reading them
    run(birth, part, root, EventWriter(Component.CUSTOMS))
    return 0


def apply(root: Path) -> int:
    """Apply one batch to one sink; return the exit code."""
    from gateway.customs.sinks.run import run

    birth, part = born(sys.stdin.buffer, Component.CUSTOMS, CustomsSlice)
    run(birth, part, root, EventWriter(Component.CUSTOMS))
    return 0


def main(arguments: list[str]) -> int:
    """Parse `arguments` and run one of the modes; a refusal is exit 2, a failure exit 1."""
    parser = argparse.ArgumentParser(prog="gateway")
    parser.add_argument("mode", choices=["serve", "audit", "customs", "apply", "bridge"])
    parser.add_argument("--root", type=Path, default=Path("/"), help="where doors, buffer, in and out are")
    parser.add_argument("--port", type=int, default=5000, help="the loopback port at which agents reach the door")
    options = parser.parse_args(arguments)
    log_to_stderr()
    try:
        match options.mode:
            case "serve":
                return serve(options.root, options.port)
            case "audit":
                return audit(options.root)
            case "customs":
                return customs(options.root)
            case "apply":
                return apply(options.root)
            case _:
                return bridge(options.root / "tools" / "stdio.sock")
    except CasemateError as error:
        sys.stderr.write(error.render() + "\n")
        return 2
    except EventLogError:
        sys.stderr.write("CSM-R011: the event log cannot be written\n")
        return 1
    except Exception as error:  # noqa: BLE001 - the last resort: the process ends; told without values
        structlog.get_logger().error("gateway failed", **told(error))
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
