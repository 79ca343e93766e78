"""Pagure, a real forge, as Debian ships it: its web application over TLS, its worker, its hooks, its database.

Two accounts: `person` owns a project, to which `bot` may push and propose; and `bot` has a private one of its own. Each
has a token. It says when it is ready, and nothing else. `ask` is the person, beside everything; `forget` has it that
nothing was ever proposed; after `crowd`, the bot has proposed a hundred other things since.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

CONFIG: dict[str, Any] = json.loads(Path("/srv/config.json").read_text())
HOME, USER = Path("/var/lib/pagure"), "_pagure"
DATABASE, SETTINGS = HOME / "pagure.sqlite", HOME / "pagure.cfg"
NAMESPACE, NAME = CONFIG["project"].split("/")
PRIVATE = "hidden"
REPOSITORIES = HOME / "repositories"
PERSON = "token-of-the-person"
TOKENS = {
    "bot": (CONFIG["token"], ("commit", "pull_request_create", "pull_request_close")),
    "person": (PERSON, ("pull_request_create", "pull_request_close", "pull_request_merge")),
}
WRITTEN = f"""
APP_URL = "https://git.example.com/"
ALLOW_HTTP_PUSH = True
DB_URL = "sqlite:///{DATABASE}?timeout=60"
GIT_AUTH_BACKEND = "pagure"
GIT_FOLDER = "{REPOSITORIES}"
HTTP_REPO_ACCESS_GITOLITE = None
LOGGING = {{"version": 1}}
REDIS_HOST = "127.0.0.1"
REMOTE_GIT_FOLDER = "{HOME}/remotes"
SALT_EMAIL = SECRET_KEY = "of-the-tests"
"""
ENV = {
    "PATH": "/usr/bin:/bin",
    "HOME": str(HOME),
    "LANG": "C.UTF-8",
    "PAGURE_CONFIG": str(SETTINGS),
    "PYTHONPATH": "/usr/lib/python3/dist-packages",
    "PYTHONWARNINGS": "ignore",
}


def start(*words: str) -> subprocess.Popen[bytes]:
    """Start a part of it, as its own user."""
    return subprocess.Popen(words, user=USER, group=USER, extra_groups=[], env=ENV, cwd=HOME, stdout=sys.stderr)


def ask(method: str, path: str, body: object = None) -> dict[str, Any]:
    """Ask its API as the person."""
    data = json.dumps(body).encode() if body is not None else None
    headers = {"Authorization": f"token {PERSON}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"https://127.0.0.1/api/0/{path}", data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60, context=ssl._create_unverified_context()) as answer:
            said: dict[str, Any] = json.load(answer)
    except urllib.error.HTTPError as error:
        said = json.load(error)
    return said


def git(*words: str, text: str = "", project: str = CONFIG["project"]) -> str:
    """Run git in a repository."""
    who = {f"GIT_{role}_{what}": "person@example.com" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    command = ["git", "--git-dir", f"{REPOSITORIES}/{project}.git", *words]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True, env={**ENV, **who})
    return done.stdout.strip()


def forget() -> None:
    """Forget every pull request, and every branch of a proposal."""
    with sqlite3.connect(DATABASE, timeout=60) as database:
        database.execute("PRAGMA foreign_keys=ON")
        database.execute("DELETE FROM pull_requests")
    for branch in git("for-each-ref", "--format=%(refname)", "refs/heads/casemate", "refs/pull").split():
        git("update-ref", "-d", branch)


def fill() -> None:
    """Make what its administrator and its people make: tables, accounts, projects, tokens."""
    import bcrypt
    from pagure.config import config
    from pagure.lib import model, query

    session = model.create_tables(config["DB_URL"], acls=config["ACLS"])
    for who in TOKENS:
        owner = query.set_up_user(session, who, who.title(), f"{who}@example.com")
        # Pagure tries it, twice for each request of git, before it looks for a token: so one that is quickly tried.
        owner.password = f"$2${bcrypt.hashpw(b'none that anybody uses', bcrypt.gensalt(4)).decode()}"
    session.commit()
    wanted = (("person", NAME, NAMESPACE, False), ("bot", PRIVATE, "bot", True))
    made = [
        query.new_project(
            session, who, name, [], [NAMESPACE], None, namespace=space, private=private, default_branch="main"
        )
        for who, name, space, private in wanted
    ]
    for task in made:
        task.get(timeout=60)
    project = query._get_project(session, NAME, namespace=NAMESPACE)
    query.add_user_to_project(session, project, "bot", "person", access="commit")
    for who, (token, acls) in TOKENS.items():
        until = datetime.now(UTC).replace(tzinfo=None) + timedelta(days=2)
        session.add(model.Token(id=token, user_id=query.get_user(session, who).id, expiration=until))
        session.flush()
        found = session.query(model.ACL).filter(model.ACL.name.in_(acls))
        session.add_all(model.TokenAcl(token_id=token, acl_id=acl.id) for acl in found)
    session.commit()


def seed(project: str) -> None:
    """Give a repository a first commit, beside its hooks."""
    for path, content in CONFIG["files"].items():
        mode = "100755" if path.endswith(".sh") else "100644"
        blob = git("hash-object", "-w", "--stdin", text=content, project=project)
        git("update-index", "--add", "--cacheinfo", f"{mode},{blob},{path}", project=project)
    tree = git("write-tree", project=project)
    git("update-ref", "refs/heads/main", git("commit-tree", tree, text="First", project=project), project=project)


def crowd() -> None:
    """Have the bot propose a hundred things after all that is there."""
    from pagure.config import config
    from pagure.lib import model, model_base, query

    session = model_base.create_session(config["DB_URL"])
    project, bot = query._get_project(session, NAME, namespace=NAMESPACE), query.get_user(session, "bot")
    sides = {"project_id": project.id, "project_id_from": project.id, "branch": "main", "user_id": bot.id}
    for number in range(1000, 1100):
        one = {"id": number, "uid": f"{number:032}", "title": f"Other {number}", "branch_from": f"other/{number}"}
        session.add(model.PullRequest(**one, **sides))
    session.commit()


def application() -> Callable[..., Any]:
    """Return Pagure's web application.

    With the web framework of its Debian, the headers that git's server gives it leave it as `b'text'`: mended here.
    """
    from pagure.flask_app import create_app

    pagure = create_app()

    def mended(environ: dict[str, Any], begin: Callable[..., Any]) -> Any:
        def begun(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            return begin(status, [(n, v[2:-1] if v.startswith("b'") else v) for n, v in headers], *rest)

        return pagure(environ, begun)

    return mended


def main() -> None:
    """Start it, fill it, and wait until it answers."""
    SETTINGS.write_text(WRITTEN)
    certificate = HOME / "server.pem"
    shutil.copy("/srv/server.pem", certificate)
    shutil.chown(certificate, USER)
    start("redis-server", "--bind", "127.0.0.1", "--save", "", "--dir", str(HOME))
    start("celery", "-A", "pagure.lib.tasks", "worker", "--concurrency", "1", "--loglevel", "WARNING")
    if start("python3", "/srv/servers.py", "fill").wait():
        sys.exit("it cannot be filled")
    start("gunicorn", "--bind", "0.0.0.0:443", "--threads", "8", "--certfile", str(certificate), "--keyfile",
          str(certificate), "--chdir", "/srv", "servers:application()")  # fmt: skip
    while True:
        try:
            ask("GET", "-/version")
            break
        except OSError:
            time.sleep(0.1)
    print(json.dumps({"ready": True}), flush=True)
    time.sleep(1e6)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["fill"]:
            fill()
            seed(CONFIG["project"])
            seed(f"bot/{PRIVATE}")
        case ["forget"]:
            forget()
        case ["crowd"]:
            start("python3", "/srv/servers.py", "crowded").wait()
        case ["crowded"]:
            crowd()
        case ["ask", method, path, *body]:
            print(json.dumps(ask(method, path, json.loads(body[0]) if body else None)))
        case _:
            main()
