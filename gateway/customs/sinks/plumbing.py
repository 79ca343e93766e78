"""Git as a set of tools: objects, trees and transport, of one bare repository in memory. The only file that starts it.

No work tree, no hooks, no filters, no attributes; no configuration but ours, neither of the machine nor of a home; no
protocol but HTTPS, no host but one, to which a proxy of ours leads; no redirect. The credential is in the memory of
this process, under a number that only git's children have: in no argument, environment, file or configuration.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from gateway.customs.sinks.port import carried, proxied
from policies.events import clean

GIT: Final = "/usr/bin/git"
SECONDS: Final = 180
LOOK_SECONDS: Final = 60
PAUSES: Final = (0.2, 1.0)
_BROKEN: Final = re.compile(
    rb"handshake(?:\(\))? failed: The TLS connection was non-properly terminated|Failed to connect to"
)
"""How git complains, in the words of several versions of its libraries, of a line over which nothing was asked yet."""
_SYSTEM: Final = Path("/etc/ssl/certs/ca-certificates.crt")
_CONFIG: Final = {
    "core.attributesFile": "/dev/null",
    "core.fsmonitor": "false",
    "core.hooksPath": "/dev/null",
    "core.protectHFS": "true",
    "core.protectNTFS": "true",
    "fetch.recurseSubmodules": "false",
    "gc.auto": "0",
    "http.delegation": "none",
    "http.followRedirects": "false",
    "http.lowSpeedLimit": "1000",
    "http.lowSpeedTime": "60",
    "http.sslVerify": "true",
    "maintenance.auto": "false",
    "protocol.allow": "never",
    "protocol.https.allow": "always",
    "protocol.version": "2",
    "push.followTags": "false",
    "push.gpgSign": "false",
    "push.recurseSubmodules": "no",
    "transfer.bundleURI": "false",
    "transfer.credentialsInUrl": "die",
}
_ENVIRONMENT: Final = {
    "GIT_ALLOW_PROTOCOL": "https",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C.UTF-8",
    "PATH": "/usr/bin:/bin",
    "TZ": "UTC",
}


class GitFailed(Exception):  # noqa: N818 - the word for it
    """Git ended with an error. `refused`: a push that the server answered, so that nothing was written."""

    def __init__(self, why: str, *, refused: bool = False) -> None:
        self.why, self.refused = why, refused
        super().__init__(why)


class Plumbing:
    """One bare repository, and its origin."""

    def __init__(self, folder: Path, environment: dict[str, str], secret: str | None, inherited: Sequence[int]) -> None:
        self._folder, self._secret, self._inherited = folder, secret, inherited
        self._environment = {**environment, "HOME": str(folder), "GIT_DIR": str(folder / "repository")}
        self.run("init", "--quiet", "--bare", "--template=")

    def run(self, *words: str, text: bytes = b"", index: str = "index", **environment: str) -> bytes:
        """Run one command with a standard input; return what it writes. Raises `GitFailed`.

        A line that breaks before anything is asked over it is tried again: nobody can have acted on it.
        """
        env = {**self._environment, "GIT_INDEX_FILE": str(self._folder / index), **environment}
        done = self._once(words, text, env)
        for pause in PAUSES:
            if done is not None and not _BROKEN.search(done.stderr):
                break
            time.sleep(pause)
            done = self._once(words, text, env)
        if done is None:
            raise GitFailed(f"{words[0]} takes too long")
        if done.returncode != 0:
            rejected = words[0] == "push" and any(line.startswith(b"!") for line in done.stdout.splitlines())
            raise GitFailed(f"{words[0]}: {self._said(done.stderr)}", refused=rejected)
        return done.stdout

    def _once(
        self, words: Sequence[str], text: bytes, env: dict[str, str]
    ) -> subprocess.CompletedProcess[bytes] | None:
        """Run it; return None when it takes too long. Only what merely looks may then be tried again."""
        looks = words[0] == "ls-remote"
        try:
            return subprocess.run(  # noqa: S603 - fixed words, names and object ids; no shell
                [GIT, *words], input=text, capture_output=True, check=False, env=env, cwd=self._folder,
                timeout=LOOK_SECONDS if looks else SECONDS, pass_fds=self._inherited,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            if looks:
                return None
            raise GitFailed(f"{words[0]} takes too long") from error

    def _said(self, errors: bytes) -> str:
        """Return the last words of a complaint, without the secret."""
        lines = [line for line in errors.decode(errors="replace").splitlines() if line.startswith(("fatal", "error"))]
        said = lines[0] if lines else "it failed"
        return clean(said.replace(self._secret, "[secret]") if self._secret else said, 200)


@contextmanager
def opened(url: str, door: Path, user: str, secret: str | None, trust: Sequence[str]) -> Iterator[Plumbing]:
    """Open an empty repository whose origin is at `url`, behind `door`. Raises `GitFailed`."""
    place = urlsplit(url)
    authority = f"{place.hostname}:{place.port or 443}"
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = stack.enter_context(carried(door, proxied(authority)))
        config = {
            **_CONFIG,
            "http.proxy": f"http://127.0.0.1:{port}",
            "http.sslCAInfo": str(folder / "authorities.pem"),
        }
        config["remote.origin.url"] = url
        inherited: list[int] = []
        if secret is not None:
            inherited.append(_remembered(user, secret))
            stack.callback(os.close, inherited[0])
            helper = f'!f() {{ test "$1" = get && cat /proc/self/fd/{inherited[0]}; }}; f'
            config[f"credential.https://{place.netloc}.helper"] = helper
            config["http.proactiveAuth"] = "basic"  # some do not ask: what is private is not there for who says nothing
        system = _SYSTEM.read_text() if _SYSTEM.exists() else ""
        (folder / "authorities.pem").write_text(system + "".join(trust))
        environment = {**_ENVIRONMENT, "GIT_CONFIG_COUNT": str(len(config))}
        for number, (key, value) in enumerate(config.items()):
            environment |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
        yield Plumbing(folder, environment, secret, inherited)


def _remembered(user: str, secret: str) -> int:
    """Return the number of a piece of memory with a credential as git reads it; every reader begins at its start."""
    if not secret.isprintable() or not secret:
        raise GitFailed("the secret is not one line of printable characters")
    number = os.memfd_create("credential", os.MFD_CLOEXEC)
    os.write(number, f"username={user}\npassword={secret}\n".encode())
    return number
