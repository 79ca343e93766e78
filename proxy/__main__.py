"""`python -m proxy egress|llm [--root DIR]`: wiring only. See `proxy.start` for the order of things."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import sys
from pathlib import Path

from policies.errors import CasemateError
from policies.events import EventLogError, EventWriter
from policies.slices import Birth, FirewallSlice, LlmSlice, open_slice
from policies.vocabulary import Component
from proxy.start import Events, Roots, check_import_path, configure_logging, lay_doors, read_message, serve


async def _egress(part: FirewallSlice, birth: Birth, roots: Roots) -> int:
    from proxy.egress.app import firewall, inspects
    from proxy.egress.issuer import Issuer

    events = Events(EventWriter(Component.FIREWALL))
    issuer = Issuer() if inspects(part) else None
    published = {"casemate.certificate": issuer.published} if issuer else {}
    app = firewall(part, roots, events, issuer=issuer, secrets=birth.secrets, facts=birth.facts)
    return await serve(app, events, published)


async def _llm(part: LlmSlice, birth: Birth, roots: Roots) -> int:
    from proxy.llm.app import llm_proxy

    events = Events(EventWriter(Component.LLM))
    return await serve(llm_proxy(part, birth, roots, events), events)


def _run(component: str, roots: Roots) -> int:
    # Each process imports only its own libraries, and before the birth message is waited for, so that a process that
    # was started ahead of its run is ready at once.
    if component == "egress":
        importlib.import_module("proxy.egress.app")
        birth = read_message(sys.stdin.buffer, Component.FIREWALL)
        part = open_slice(birth, Component.FIREWALL, FirewallSlice)
        lay_doors(birth, roots)
        return asyncio.run(_egress(part, birth, roots))
    importlib.import_module("proxy.llm.app")
    birth = read_message(sys.stdin.buffer, Component.LLM)
    models = open_slice(birth, Component.LLM, LlmSlice)
    lay_doors(birth, roots)
    return asyncio.run(_llm(models, birth, roots))


def main() -> int:
    """Run one trusted process; return its exit code: 0 stopped, 1 event log broken, 2 refused to start."""
    parser = argparse.ArgumentParser(prog="python -m proxy", description=__doc__)
    parser.add_argument("component", choices=["egress", "llm"])
    parser.add_argument("--root", type=Path, default=Path("/"), help="folder that holds doors, models and state")
    arguments = parser.parse_args()
    try:
        check_import_path(sys.path)
        configure_logging()
        return _run(arguments.component, Roots.under(arguments.root))
    except CasemateError as error:
        sys.stderr.write(error.render() + "\n")
        return 2
    except EventLogError as error:
        sys.stderr.write(f"event log broken: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
