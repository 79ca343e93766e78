"""One stage: set up its cell, let the agent run, take over what it left, say how it ended."""

from __future__ import annotations

import contextlib
import io
import tarfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from policies.errors import CasemateError
from policies.events import clean
from policies.plan import Output, Stage
from policies.vocabulary import Component, EventName, Outcome, Verdict
from sandbox import sets
from sandbox.agent_env import mcp_config
from sandbox.archives import tar_of
from sandbox.artifacts import keep, unpack
from sandbox.driver import Driver
from sandbox.engine import Exit
from sandbox.supplies import Supplies
from sandbox.tool_cells import TOOL_UID
from sandbox.tool_servers import ToolServers
from sandbox.topology import RESULTS, Cell

ARTIFACTS = "artifacts"
"""What a stage leaves in /workspace/artifacts is its artifact: the next stages find it in /artifacts/<stage>."""

_TAR_OVERHEAD = 64 << 20
_AGENT_LOG = 8 << 20


@dataclass(frozen=True, slots=True)
class StageEnd:
    """How a stage ended, with code and reason where it did not complete."""

    outcome: Outcome
    code: str | None = None
    reason: str | None = None
    sets: Mapping[str, str] = field(default_factory=dict)
    """Digests of the files of records that were taken over, by proposal."""


def run_stage(
    driver: Driver,
    stage: Stage,
    cell: Cell,
    supplies: Supplies,
    folder: Path,
    trusted: dict[Component, str],
    outputs: Mapping[str, Output],
) -> StageEnd:
    """Run one stage to its end. Raises `CasemateError` when a trusted part fails; the agent's failures are outcomes."""
    engine, started = driver.engine, time.monotonic()
    set_up(driver, cell, stage.name, supplies)
    load(driver, stage, cell, supplies, folder)
    engine.create(cell.agent)
    driver.await_ready([relay.name for relay in cell.relays])
    with ToolServers(engine, cell.tools, folder / "logs", supplies.secrets, meanwhile=driver.step):
        driver.note(EventName.STAGE_STARTED, stage=stage.name)
        driver.watch.launch_agent(cell.agent)
        try:
            how = driver.await_end(cell.agent.name, started + stage.limits.wall_s)
            if how is None:
                engine.kill(cell.agent.name)
                driver.await_end(cell.agent.name, time.monotonic() + 30)
        finally:
            with contextlib.suppress(CasemateError):  # a container that is gone has nothing more to say
                _keep_log(driver, stage, cell, folder)
    driver.sync(trusted)
    end = _judge(driver, stage, how)
    if end.outcome is Outcome.COMPLETED:
        end = _take_artifacts(driver, stage, cell, folder) or _take_sets(driver, stage, cell, folder, outputs)
    for relay in cell.relays:
        driver.release(relay.name)
    for spec in (cell.agent, *cell.relays, cell.carrier):
        engine.remove("container", spec.name)
    for volume in cell.volumes:
        engine.remove("volume", volume.name)
    driver.note(
        EventName.STAGE_ENDED,
        stage=stage.name,
        verdict=None if end.outcome is Outcome.COMPLETED else Verdict.DENY,
        rule=end.code,
        reason=end.reason,
        attrs={
            "casemate.outcome": end.outcome.value,
            "casemate.exit_code": how.code if how else None,
            "casemate.duration_ms": int((time.monotonic() - started) * 1000),
        },
    )
    return end


def set_up(driver: Driver, cell: Cell, stage: str, supplies: Supplies) -> None:
    """Make the volumes of a cell, start its relays, and give its MCP servers what they alone have."""
    for volume in cell.volumes:
        driver.engine.create_volume(volume)
    for relay in cell.relays:
        driver.launch(relay)
    driver.engine.create(cell.carrier)
    for tool in cell.tools:
        if tool.trust_at in tool.loads:
            driver.engine.put(cell.carrier.name, tool.trust_at, tar_of(supplies.authorities))
        if tool.secret is not None:
            value = supplies.secrets[tool.secret].encode()
            archive = tar_of({tool.secret: value}, uid=TOOL_UID, gid=TOOL_UID, mode=0o400)
            driver.engine.put(cell.carrier.name, tool.secrets_at, archive)
            attrs: dict[str, object] = {
                "casemate.secret.name": tool.secret,
                "casemate.component": "tool",
                "casemate.server": tool.server,
            }
            driver.note(EventName.SECRET_DELIVERED, stage=stage, attrs=attrs)


def load(driver: Driver, stage: Stage, cell: Cell, supplies: Supplies, folder: Path) -> None:
    """Put inputs, artifacts of needed stages, and the agent's MCP configuration into the cell's volumes."""
    put, inputs = driver.engine.put, supplies.inputs
    put(cell.carrier.name, "/inputs", tar_of({name: inputs[name] for name in sorted(inputs)}))
    carried = {}
    for need in stage.needs:
        source = folder / "artifacts" / need
        for path in sorted(p for p in source.rglob("*") if p.is_file()):
            carried[f"{need}/{path.relative_to(source)}"] = path.read_bytes()
    if stage.tools:  # a place for what is mounted there
        carried[f"{PurePosixPath(RESULTS).name}/none"] = b""
    put(cell.carrier.name, "/artifacts", tar_of(carried))
    put(cell.carrier.name, "/casemate", tar_of({"mcp.json": mcp_config(stage), **supplies.authorities}))


def _judge(driver: Driver, stage: Stage, how: Exit | None) -> StageEnd:
    """Say how a stage ended. Silence is never success."""
    tally = driver.tally.stages.get(stage.name)
    proposed, reported = (tally.proposed, tally.reported) if tally else (0, None)
    if how is None:
        return StageEnd(Outcome.TIMED_OUT, "CSM-R007", f"not done after {stage.limits.wall_s} s")
    if how.code != 0:
        why = "out of memory" if how.out_of_memory else f"the agent ended with exit code {how.code}"
        return StageEnd(Outcome.FAILED, "CSM-R005", why)
    if reported == "report_incomplete":
        return StageEnd(Outcome.INCOMPLETE, "CSM-R020", "the agent reported that it could not finish")
    if stage.outputs and not proposed and reported != "noop":
        return StageEnd(Outcome.INCOMPLETE, "CSM-R006", "asked for output, the agent proposed nothing")
    return StageEnd(Outcome.COMPLETED)


def _take_artifacts(driver: Driver, stage: Stage, cell: Cell, folder: Path) -> StageEnd | None:
    """Copy /workspace/artifacts out of the cell. The relay still runs, so the memory behind it is still there."""
    prefix = f"workspace/{ARTIFACTS}"
    try:
        archive = driver.engine.get(cell.carrier.name, "/workspace", stage.limits.disk + _TAR_OVERHEAD)
        files = unpack(archive, prefix, stage.limits.disk)
    except (CasemateError, tarfile.TarError) as error:
        reason = error.message if isinstance(error, CasemateError) else "the workspace cannot be read"
        return StageEnd(Outcome.FAILED, "CSM-R008", reason)
    keep(files, folder / "artifacts" / stage.name)
    if files:
        attrs = {"casemate.write.count": len(files), "casemate.bytes.out": sum(map(len, files.values()))}
        driver.note(EventName.ARTIFACT_TAKEN, stage=stage.name, verdict=Verdict.ALLOW, attrs=attrs)
    return None


def _take_sets(driver: Driver, stage: Stage, cell: Cell, folder: Path, outputs: Mapping[str, Output]) -> StageEnd:
    try:
        taken = sets.take(driver, stage.name, cell.carrier.name, outputs, folder)
    except CasemateError as error:
        return StageEnd(Outcome.FAILED, error.code, error.message)
    return StageEnd(Outcome.COMPLETED, sets=taken)


def _keep_log(driver: Driver, stage: Stage, cell: Cell, folder: Path) -> None:
    """Keep the end of what the agent printed, for people; escaped, for it may print anything."""
    text = driver.engine.logs(cell.agent.name, tail=5000)[-_AGENT_LOG:].decode(errors="replace")
    with (folder / "logs" / f"{stage.name}.agent.log").open("w", encoding="utf-8") as log:
        for line in io.StringIO(text):
            log.write(clean(line.rstrip("\n"), 4000) + "\n")
