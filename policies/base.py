"""What all types of a plan are made of."""

from __future__ import annotations

from typing import Annotated

import msgspec

RUN_TIME = "%Y%m%d-%H%M%S"
"""How the id of a run begins: when it was started, in UTC. It is 15 characters."""
Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_-]{0,39}$")]
Digest = Annotated[str, msgspec.Meta(pattern=r"^sha256:[0-9a-f]{64}$")]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class Frozen(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all plan types: immutable, and a field that is not known is refused."""
