"""A git server over HTTPS, for tests: real repositories behind git's own `http-backend`, and beside it a forge's API.

The API is ours, in the shapes that GitHub, Gitea and GitLab document for pull requests: there is no forge to be had as
a package. It looks at the repositories, refuses what they refuse (a branch that is not there, a second request for one
branch), and tells what arrived, one line of JSON each. Standard library only: it is copied into a container.
"""

from __future__ import annotations

import base64
import json
import os
import re
import ssl
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from urllib.request import urlopen

_LOCK = threading.RLock()
ENV = {"PATH": "/usr/bin:/bin", "HOME": "/nowhere", "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C.UTF-8"}
WHO = {f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER")
       for what, value in (("NAME", "A Person"), ("EMAIL", "person@example.com"))}  # fmt: skip


def tell(**fields: Any) -> None:
    """Say what arrived."""
    with _LOCK:
        print(json.dumps(fields), flush=True)


class Project:
    """One bare repository, and the pull requests of it."""

    def __init__(self, root: Path, name: str, files: dict[str, str], *, whole: bool = False) -> None:
        self.name, self.path = name, root / f"{name}.git"
        self.pulls: list[dict[str, Any]] = []
        self.path.mkdir(parents=True)
        self.git("init", "--quiet", "--bare", "--initial-branch=main")
        for key in ("http.receivepack", *(() if whole else ("uploadpack.allowFilter",))):
            self.git("config", key, "true")
        self.commit("main", files, "First")

    def git(self, *words: str, text: str = "", **env: str) -> str:
        """Run git in the repository; return what it prints."""
        done = subprocess.run(
            ["git", "--git-dir", str(self.path), *words], input=text, capture_output=True, text=True, check=False,
            env={**ENV, **WHO, **env},
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"git {words[0]}: {done.stderr}")
        return done.stdout

    def commit(self, branch: str, files: dict[str, str], message: str) -> None:
        """Add a commit with more files; a content that begins with `-> ` is a link."""
        parent = self.head(branch)
        index = {"GIT_INDEX_FILE": str(self.path / "test-index")}
        self.git("read-tree", *([parent] if parent else ["--empty"]), **index)
        for path, content in files.items():
            mode = "120000" if content.startswith("-> ") else "100755" if path.endswith(".sh") else "100644"
            blob = self.git("hash-object", "-w", "--stdin", text=content.removeprefix("-> ")).strip()
            self.git("update-index", "--add", "--cacheinfo", f"{mode},{blob},{path}", **index)
        tree = self.git("write-tree", **index).strip()
        words = ["-p", parent] if parent else []
        made = self.git("commit-tree", tree, *words, text=message).strip()
        self.git("update-ref", f"refs/heads/{branch}", made)

    def head(self, branch: str) -> str | None:
        """Return the commit of a branch."""
        found = self.git("for-each-ref", "--format=%(objectname)", f"refs/heads/{branch}").strip()
        return found or None


class Forge:
    """The API of a forge, for some projects."""

    def __init__(self, projects: dict[str, Project]) -> None:
        self._projects = projects

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        """Return status and answer of a request."""
        with _LOCK:
            if found := re.search(r"/repos/([^/]+/[^/]+)/(pulls|issues)(/.*)?$", path):
                name, kind, rest = found.groups()
                return self._github(self._projects[unquote(name)], method, kind, rest or "", query, body)
            if found := re.search(r"/projects/([^/]+)/merge_requests(?:/(\d+))?$", path):
                name, number = found.groups()
                return self._gitlab(self._projects[unquote(name)], method, number, query, body)
            return 404, {"message": "Not Found"}

    def _github(
        self, project: Project, method: str, kind: str, rest: str, query: dict[str, str], body: Any
    ) -> tuple[int, Any]:
        parts = [unquote(part) for part in rest.split("/")[1:]]
        if method == "POST" and kind == "issues":
            pull = project.pulls[int(parts[0]) - 1]
            pull["labels"] += [{"name": label} for label in body["labels"]]
            return 200, pull["labels"]
        if method == "POST":
            return self._open(
                project, body["head"], body["base"], body["title"], body["body"], draft=body.get("draft", False)
            )
        if method == "GET" and not parts:
            owner, _, branch = query["head"].partition(":")
            mine = project.name.startswith(f"{owner}/")
            return 200, [p for p in project.pulls if mine and p["head"]["ref"] == branch]
        if method == "GET" and len(parts) == 2:
            found = [p for p in project.pulls if [p["base"]["ref"], p["head"]["ref"]] == parts]
            return (200, found[0]) if found else (404, {"message": "not found"})
        pull = project.pulls[int(parts[0]) - 1]
        if method == "PATCH":
            pull.update(body)
        return 200, pull

    def _gitlab(
        self, project: Project, method: str, number: str | None, query: dict[str, str], body: Any
    ) -> tuple[int, Any]:
        if method == "POST":
            head, base = body["source_branch"], body["target_branch"]
            status, pull = self._open(project, head, base, body["title"], body["description"], draft=False)
            return status, _merge_request(pull) if status == 201 else pull
        if number is None:
            wanted = query["source_branch"]
            return 200, [_merge_request(p) for p in project.pulls if p["head"]["ref"] == wanted]
        pull = project.pulls[int(number) - 1]
        if method == "PUT" and body.get("state_event") == "close":
            pull["state"] = "closed"
        if method == "PUT" and "add_labels" in body:
            pull["labels"] += [{"name": label} for label in body["add_labels"].split(",")]
        return 200, _merge_request(pull)

    def _open(self, project: Project, head: str, base: str, title: str, body: str, *, draft: bool) -> tuple[int, Any]:
        sha = project.head(head)
        if sha is None or project.head(base) is None:
            return 422, {"message": "Validation Failed: no such branch"}
        if any(pull["head"]["ref"] == head and pull["state"] == "open" for pull in project.pulls):
            return 422, {"message": "A pull request already exists"}
        pull = {
            "number": len(project.pulls) + 1, "state": "open", "merged_at": None, "labels": [], "title": title,
            "body": body, "draft": draft, "head": {"ref": head, "sha": sha}, "base": {"ref": base},
        }  # fmt: skip
        project.pulls.append(pull)
        tell(opened=pull["number"], branch=head, title=title)
        return 201, pull


def _merge_request(pull: dict[str, Any]) -> dict[str, Any]:
    state = {"open": "opened"}.get(pull["state"], pull["state"])
    labels = [label["name"] for label in pull["labels"]]
    projects = {"source_project_id": pull.get("fork", 7), "target_project_id": 7}
    return {"iid": pull["number"], "state": "merged" if pull["merged_at"] else state, "labels": labels, **projects}


class Handler(BaseHTTPRequestHandler):
    """Git where the path names a repository, and the API elsewhere."""

    protocol_version = "HTTP/1.1"
    server: Server

    def _serve(self) -> None:
        url = urlsplit(self.path)
        writes = "receive-pack" in self.path
        known = self._known()
        tell(method=self.command, host=self.headers["host"], path=self.path, known=known)
        body = self._body()
        if self.client_address[0] == "127.0.0.1" and url.path in ("/pulls", "/forget"):
            self._owner(url.path)
        elif ".git/" not in url.path:
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            status, answer = 401, {"message": "Bad credentials"}
            if known:
                status, answer = self.server.forge.answer(self.command, url.path, query, json.loads(body or b"null"))
            self._say(status, {"Content-Type": "application/json"}, json.dumps(answer).encode())
        elif self.server.elsewhere:
            self._say(301, {"Location": self.server.elsewhere + self.path}, b"")
        elif not known and (writes or self.server.private):
            self._say(401, {"WWW-Authenticate": 'Basic realm="git"'}, b"")
        else:
            self._backend(url.path, url.query, body)

    def _owner(self, path: str) -> None:
        """Show every pull request to who asks beside everything, or forget them."""
        pulls = [pull for project in self.server.projects.values() for pull in project.pulls]
        if path == "/forget":
            for project in self.server.projects.values():
                project.pulls.clear()
        self._say(200, {}, json.dumps(pulls).encode())

    def _known(self) -> bool:
        scheme, _, value = self.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            value = base64.b64decode(value).decode().partition(":")[2]
        return bool(value) and value == self.server.token

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding", "") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _backend(self, path: str, query: str, body: bytes) -> None:
        env = {
            **ENV, "GIT_PROJECT_ROOT": str(self.server.root), "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": unquote(path),
            "QUERY_STRING": query, "REQUEST_METHOD": self.command, "CONTENT_LENGTH": str(len(body)),
            "REMOTE_USER": "bot",
            "CONTENT_TYPE": self.headers.get("content-type", ""), "GIT_PROTOCOL": self.headers.get("git-protocol", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("content-encoding", ""),
        }  # fmt: skip
        done = subprocess.run(["git", "http-backend"], input=body, capture_output=True, check=False, env=env)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
        self._say(int(headers.pop("Status", "200").split()[0]), headers, content)

    def _say(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = _serve  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
        pass


class Server(ThreadingHTTPServer):
    """Repositories of `projects` (files by path, by name), which takes one token.

    `elsewhere`: where it sends git; `whole`: it gives no part of a repository without the rest.
    """

    daemon_threads = True

    def __init__(self, root: Path, address: tuple[str, int], certificate: Path, config: dict[str, Any]) -> None:
        self.root, self.token = root, config["token"]
        self.private, self.elsewhere = config.get("private", True), config.get("elsewhere", "")
        whole = config.get("whole", False)
        self.projects = {name: Project(root, name, files, whole=whole) for name, files in config["projects"].items()}
        self.forge = Forge(self.projects)
        super().__init__(address, Handler)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)
        self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say what went wrong with a connection, and no more."""
        tell(failed=repr(sys.exc_info()[1]))


def ask(path: str) -> None:
    """Print what a running server says to its owner."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with urlopen(f"https://127.0.0.1{path}", context=context) as answer:
        sys.stdout.buffer.write(answer.read())


if __name__ == "__main__":
    if sys.argv[1] == "ask":
        ask(sys.argv[2])
        sys.exit()
    os.environ.clear()
    served = Server(
        Path("/srv/git"), ("0.0.0.0", 443), Path("/srv/server.pem"), json.loads(Path("/srv/config.json").read_text())
    )
    tell(ready=True)
    served.serve_forever()
