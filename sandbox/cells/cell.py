"""One cell, of a stage or of a shard: set it up, let the agent run, take over what it left, say how it ended."""

from __future__ import annotations

import contextlib
import io
import shutil
import tarfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from policies.cells import parted
from policies.errors import CasemateError
from policies.events import clean
from policies.plan import Output, Stage
from policies.vocabulary import Component, EventName, Outcome, Verdict
from sandbox.archives import Entry, tar_of
from sandbox.cells import sets
from sandbox.cells.artifacts import keep, unpack
from sandbox.cells.driver import Driver
from sandbox.cells.supplies import Supplies
from sandbox.cells.tool_servers import ToolServers
from sandbox.engine.docker import Exit
from sandbox.topology.agent_env import mcp_config
from sandbox.topology.layout import RESULTS, Cell
from sandbox.topology.tool_cells import TOOL_UID

ARTIFACTS = "artifacts"
"""What a stage leaves in /workspace/artifacts is its artifact: the next stages find it in /artifacts/<stage>, that of a
shard in /artifacts/<stage>/<number>."""

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


class Session:
    """The stay of one agent in its cell. `name` is that of the cell, of a stage or of a shard of it."""

    def __init__(
        self,
        driver: Driver,
        name: str,
        stage: Stage,
        cell: Cell,
        supplies: Supplies,
        folder: Path,
        outputs: Mapping[str, Output],
    ) -> None:
        self._driver, self._name, self._stage, self._cell = driver, name, stage, cell
        self._supplies, self._folder, self._outputs = supplies, folder, outputs
        self._servers = ExitStack()
        self._began = time.monotonic()
        self._started = False

    @property
    def agent(self) -> str:
        """The name of the agent's container."""
        return self._cell.agent.name

    @property
    def deadline(self) -> float:
        """When it must have ended (monotonic seconds)."""
        return self._began + self._stage.limits.wall_s

    def begin(self) -> None:
        """Set up the cell, and start the agent. Raises `CasemateError` when a trusted part fails."""
        driver, cell, name = self._driver, self._cell, self._name
        set_up(driver, self._stage, cell, name, self._supplies, self._folder)
        driver.engine.create(cell.agent)
        driver.await_ready([relay.name for relay in cell.relays])
        secrets = self._supplies.secrets
        servers = ToolServers(driver.engine, cell.tools, self._folder / "logs", secrets, meanwhile=driver.step)
        self._servers.enter_context(servers)
        attrs = {"casemate.digest": self._supplies.part} if self._supplies.part is not None else {}
        driver.note(EventName.STAGE_STARTED, stage=name, attrs=attrs)
        driver.watch.launch_agent(cell.agent)
        self._started = True

    def leave(self) -> None:
        """End the servers, and keep what the agent printed. Can be called again."""
        if self._started:
            self._started = False
            with contextlib.suppress(CasemateError):  # a container that is gone has nothing more to say
                _keep_log(self._driver, self._name, self._cell, self._folder)
        self._servers.close()

    def end(self, how: Exit | None, trusted: dict[Component, str], *, wanted: bool = True) -> StageEnd:
        """Take over what the agent left, and say how it ended. `how` it ended by itself, if it did.

        The agent's failures are outcomes. What nobody has `wanted` any more is cancelled.
        """
        driver, cell, engine = self._driver, self._cell, self._driver.engine
        if how is None:
            engine.kill(self.agent)
            driver.await_end(self.agent, time.monotonic() + 30)
        self.leave()
        driver.sync(trusted)
        end = self._judge(how) if wanted else StageEnd(Outcome.CANCELLED, None, "another shard ended the stage")
        if end.outcome is Outcome.COMPLETED:
            end = self._take_artifacts() or self._take_sets()
        for relay in cell.relays:
            driver.release(relay.name)
        for spec in (cell.agent, *cell.relays, cell.carrier):
            engine.remove("container", spec.name)
        for volume in cell.volumes:
            engine.remove("volume", volume.name)
        driver.note(
            EventName.STAGE_ENDED,
            stage=self._name,
            verdict=None if end.outcome is Outcome.COMPLETED else Verdict.DENY,
            rule=end.code,
            reason=end.reason,
            attrs={
                "casemate.outcome": end.outcome.value,
                "casemate.exit_code": how.code if how else None,
                "casemate.duration_ms": int((time.monotonic() - self._began) * 1000),
            },
        )
        return end

    def _judge(self, how: Exit | None) -> StageEnd:
        """Say how a stage ended. Silence is never success."""
        stage, tally = self._stage, self._driver.tally.cells.get(self._name)
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

    def _take_artifacts(self) -> StageEnd | None:
        """Copy /workspace/artifacts out of the cell. The relay still runs, so the memory behind it is still there."""
        prefix, most = f"workspace/{ARTIFACTS}", self._stage.limits.disk
        try:
            carrier = self._cell.carrier.name
            with self._driver.engine.reading(carrier, "/workspace", most + _TAR_OVERHEAD) as archive:
                files = unpack(archive, prefix, most)
        except (CasemateError, tarfile.TarError) as error:
            reason = error.message if isinstance(error, CasemateError) else "the workspace cannot be read"
            return StageEnd(Outcome.FAILED, "CSM-R008", reason)
        target = artifacts_of(self._folder, self._name)
        shutil.rmtree(target, ignore_errors=True)  # of an attempt that counts no more
        keep(files, target)
        if files:
            attrs = {"casemate.write.count": len(files), "casemate.bytes.out": sum(map(len, files.values()))}
            self._driver.note(EventName.ARTIFACT_TAKEN, stage=self._name, verdict=Verdict.ALLOW, attrs=attrs)
        return None

    def _take_sets(self) -> StageEnd:
        try:
            taken = sets.take(self._driver, self._name, self._cell.carrier.name, self._outputs, self._folder)
        except CasemateError as error:
            return StageEnd(Outcome.FAILED, error.code, error.message)
        return StageEnd(Outcome.COMPLETED, sets=taken)


def artifacts_of(folder: Path, cell: str) -> Path:
    """Return where the artifacts of a cell are kept below a run's folder: those of a shard in a folder of its own."""
    stage, shard = parted(cell)
    return folder / ARTIFACTS / stage / (str(shard) if shard is not None else "")


def set_up(driver: Driver, stage: Stage, cell: Cell, name: str, supplies: Supplies, folder: Path) -> None:
    """Make the volumes of a cell, start its relays, and put into the volumes what belongs there."""
    for volume in cell.volumes:
        driver.engine.create_volume(volume)
    for relay in cell.relays:
        driver.launch(relay)
    driver.engine.create(cell.carrier)
    driver.engine.put(cell.carrier.name, tar_of(_contents(stage, cell, supplies, folder)))
    for tool in cell.tools:
        if tool.secret is not None:
            attrs: dict[str, object] = {
                "casemate.secret.name": tool.secret,
                "casemate.component": "tool",
                "casemate.server": tool.server,
            }
            driver.note(EventName.SECRET_DELIVERED, stage=name, attrs=attrs)


def _contents(stage: Stage, cell: Cell, supplies: Supplies, folder: Path) -> dict[str, bytes | Entry]:
    """Return inputs, artifacts of needed stages, the agent's MCP configuration, and what MCP servers alone have."""
    files: dict[str, bytes | Entry] = {f"inputs/{name}": content for name, content in supplies.inputs.items()}
    for need in stage.needs:
        source = folder / ARTIFACTS / need
        for path in (p for p in source.rglob("*") if p.is_file()):
            files[f"{ARTIFACTS}/{need}/{path.relative_to(source)}"] = path.read_bytes()
    if stage.tools:  # a place for what is mounted there
        files[f"{RESULTS.removeprefix('/')}/none"] = b""
    files |= _below("/casemate", {"mcp.json": mcp_config(stage), **supplies.authorities})
    for tool in cell.tools:
        if tool.trust_at in tool.loads:
            files |= _below(tool.trust_at, supplies.authorities)
        if tool.secret is not None:
            value = supplies.secrets[tool.secret].encode()
            files |= _below(tool.secrets_at, {tool.secret: Entry(value, 0o400, TOOL_UID, TOOL_UID)})
    return files


def _below(at: str, files: Mapping[str, bytes] | Mapping[str, Entry]) -> dict[str, bytes | Entry]:
    return {f"{at.removeprefix('/')}/{name}": content for name, content in files.items()}


def _keep_log(driver: Driver, name: str, cell: Cell, folder: Path) -> None:
    """Keep the end of what the agent printed, for people; escaped, for it may print anything."""
    text = driver.engine.logs(cell.agent.name, tail=5000)[-_AGENT_LOG:].decode(errors="replace")
    with (folder / "logs" / f"{name}.agent.log").open("w", encoding="utf-8") as log:
        for line in io.StringIO(text):
            log.write(clean(line.rstrip("\n"), 4000) + "\n")
