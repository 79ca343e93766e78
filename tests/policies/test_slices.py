"""A slice belongs to its plan, byte for byte, or its process does not start."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from policies.errors import CasemateError
from policies.plan import encode
from policies.slices import (
    Birth,
    CustomsSlice,
    FirewallSlice,
    GatewaySlice,
    LlmSlice,
    open_slice,
    read_birth,
    seal,
    slices,
)
from policies.vocabulary import Component
from tests.plans import plan

KINDS: dict[Component, Any] = {
    Component.FIREWALL: FirewallSlice,
    Component.LLM: LlmSlice,
    Component.GATEWAY: GatewaySlice,
    Component.CUSTOMS: CustomsSlice,
}
SECRET = "sk-canary-0123456789"


def birth(component: Component) -> Birth:
    text = encode(slices(plan())[component]).decode()
    return Birth(run="r", seal=seal(plan()), slice=text, secrets={"openai_key": SECRET})


@pytest.mark.parametrize("component", KINDS)
def test_an_honest_slice_opens(component: Component) -> None:
    message = read_birth(encode(birth(component)), component)
    assert open_slice(message, component, KINDS[component]) == slices(plan())[component]


@pytest.mark.parametrize("component", KINDS)
def test_one_changed_byte_is_refused_wherever_it_is(component: Component) -> None:
    honest = birth(component)
    text = honest.slice
    for position in range(0, len(text), max(1, len(text) // 60)):
        other = "0" if text[position] != "0" else "1"
        forged = msgspec.structs.replace(honest, slice=text[:position] + other + text[position + 1 :])
        with pytest.raises(CasemateError, match="CSM-R010"):
            open_slice(forged, component, KINDS[component])


@pytest.mark.parametrize("component", KINDS)
@pytest.mark.parametrize("part", ["plan", "body", "slices"])
def test_a_forged_seal_is_refused(component: Component, part: str) -> None:
    honest = birth(component)
    fake = "sha256:" + "0" * 64
    value = {**honest.seal.slices, component.value: fake} if part == "slices" else fake
    forged = msgspec.structs.replace(honest, seal=msgspec.structs.replace(honest.seal, **{part: value}))
    with pytest.raises(CasemateError, match="CSM-R010"):
        open_slice(forged, component, KINDS[component])


def test_a_slice_of_another_component_is_refused() -> None:
    with pytest.raises(CasemateError, match="CSM-R010"):
        open_slice(birth(Component.LLM), Component.FIREWALL, FirewallSlice)


def test_a_slice_with_an_unknown_field_is_refused_even_when_sealed() -> None:
    text = json.dumps({**msgspec.to_builtins(slices(plan())[Component.CUSTOMS]), "extra": 1})
    honest = seal(plan())
    # Somebody who can seal can also lie: the receiver still refuses what it does not know.
    from policies.canonical import canonical, digest, digest_of, merkle

    data = canonical(json.loads(text)).decode()
    parts = {**honest.slices, "customs": digest(data.encode())}
    root = digest_of({"body": honest.body, "slices": merkle(parts)})
    forged = Birth(
        run="r",
        seal=msgspec.structs.replace(honest, plan=root, slices=parts),
        slice=data,
        secrets={},
    )
    with pytest.raises(CasemateError, match="unknown field"):
        open_slice(forged, Component.CUSTOMS, CustomsSlice)


def test_no_slice_contains_a_secret_or_more_than_it_needs() -> None:
    cut = {component: encode(part).decode() for component, part in slices(plan()).items()}
    assert all(SECRET not in text for text in cut.values())
    assert "api_key" not in cut[Component.FIREWALL]
    assert "openai_key" not in cut[Component.FIREWALL]
    assert "data.example.com" not in cut[Component.LLM]
    assert "api.example.com" not in cut[Component.GATEWAY]
    assert "agent-python" not in "".join(cut.values())


@pytest.mark.parametrize(
    "junk", [b"", b"{}", b"[]", b"\x00", b'{"run": 1}', b'{"run":"r","seal":{},"slice":"","secrets":{}}']
)
def test_a_message_that_is_not_a_birth_is_refused(junk: bytes) -> None:
    with pytest.raises(CasemateError, match="CSM-R010"):
        read_birth(junk, Component.LLM)
