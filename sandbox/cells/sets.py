"""Sets: files of records that an agent proposed by name, taken over by copy when it has ended.

From here on nobody who met the agent can change them; the event log has the digest of what customs will judge. A file
that is missing, no plain file, or too large fails the stage: what was promised would be lost.
"""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from pathlib import Path

from policies.errors import CasemateError
from policies.plan import Output
from policies.vocabulary import EventName, ExitCode, Verdict
from sandbox.archives import TooLargeError, keep_file
from sandbox.cells.driver import Driver
from sandbox.records.account import Promise

FOLDER = "sets"


def take(
    driver: Driver,
    stage: str,
    carrier: str,
    outputs: Mapping[str, Output],
    folder: Path,
) -> dict[str, str]:
    """Copy the files of a stage below a run's folder; return their digests by proposal. Raises CSM-R025."""
    taken: dict[str, str] = {}
    (folder / FOLDER).mkdir(mode=0o700, exist_ok=True)
    for promise in driver.account.promises.get(stage, ()):
        target = folder / FOLDER / f"{promise.id}.jsonl"
        target.unlink(missing_ok=True)  # of an attempt that counts no more
        digest, size = _take(driver, carrier, promise, target, outputs[promise.output].max_bytes)
        taken[promise.id] = digest
        attrs: dict[str, object] = {
            "casemate.output": promise.output,
            "casemate.write.id": promise.id,
            "casemate.digest": digest,
            "casemate.bytes.in": size,
        }
        driver.note(EventName.WRITE_TAKEN, stage=stage, verdict=Verdict.ALLOW, attrs=attrs)
    return taken


def _take(driver: Driver, carrier: str, promise: Promise, target: Path, limit: int) -> tuple[str, int]:
    why = "no plain file"
    try:
        with driver.engine.reading(carrier, f"/workspace/{promise.path}") as archive:
            info = archive.next()
            content = archive.extractfile(info) if info is not None and info.isreg() else None
            if content is not None:
                return keep_file(content, target, limit)
    except TooLargeError:
        why = f"over {limit} bytes"
    except (CasemateError, tarfile.TarError, OSError):
        why = "it cannot be read"
    message = f"{promise.path}, proposed for {promise.output}, is refused: {why}"
    raise CasemateError("CSM-R025", message, exit_code=ExitCode.STAGE_FAILED)
