"""Top-level keys that stand alone: a table of fixed answers, and the few that become limits, models or variables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from policies.events import clean
from sandbox.importer.draft import Draft
from sandbox.importer.notes import Kind, Ledger
from sandbox.importer.source import mapping, plain, slug

MAX_MINUTES = 24 * 60
_HOLD = "every write is held for a person"

# key: class, whether it limits somebody, what became of it or what to do
FIXED: dict[str, tuple[Kind, bool, str]] = {
    "emoji": (Kind.NONE, False, "decoration; nothing to do"),
    "labels": (Kind.NONE, False, "sorts workflows in a listing; nothing to do"),
    "metadata": (Kind.NONE, False, "keep it in your own records"),
    "source": (Kind.NONE, False, "keep in version control where the workflow came from"),
    "redirect": (Kind.NONE, False, "an import is made once; import the other file if it replaces this one"),
    "resources": (Kind.NONE, False, "import the named files too, if they are workflows"),
    "tracker-id": (Kind.NONE, False, "writes are found by run and output in the event log"),
    "run-name": (Kind.NONE, False, "a run is named after its workflow"),
    "runs-on": (Kind.NONE, False, "a run takes place on the host where `casemate run` is called"),
    "runs-on-slim": (Kind.NONE, False, "a run takes place on the host where `casemate run` is called"),
    "inlined-imports": (Kind.MAPPED, False, "an import is always inlined, and its digest is in the plan"),
    "check-for-updates": (Kind.NONE, False, "keep Casemate up to date by your own means"),
    "private": (Kind.NONE, True, "do not share the imported files where the original must not go"),
    "import-schema": (Kind.NONE, False, "the values stand literally; write them into the prompt"),
    "max-daily-ai-credits": (Kind.NONE, True, "no ceiling a day is kept; count runs where you start them"),
    "max-turn-cache-misses": (Kind.NONE, True, "not counted; budget: ends a run that becomes expensive"),
    "user-rate-limit": (Kind.NONE, True, "limit how often a user may start a run, where you start it"),
    "rate-limit": (Kind.NONE, True, "limit how often a user may start a run, where you start it"),
    "concurrency": (Kind.NONE, True, "start one run at a time, for instance by a lock around `casemate run`"),
    "if": (Kind.NONE, True, "test this condition before you call `casemate run`"),
    "environment": (Kind.NONE, True, "its protection rules do not apply; ask for the same reviewers before a run"),
    "roles": (Kind.NONE, True, "check who asks before you call `casemate run`"),
    "bots": (Kind.NONE, True, "check who asks before you call `casemate run`"),
    "container": (Kind.NONE, False, "name an image of yours in stages[0].image"),
    "services": (Kind.NONE, False, "a cell has no neighbours; offer the service as an MCP server under tools:"),
    "runtimes": (Kind.NONE, False, "build an image with these versions, and name it in stages[0].image"),
    "cache": (Kind.STRICTER, False, "a cell keeps nothing from one run to the next"),
    "ambient-folders": (Kind.NONE, False, "declare the folders under inputs:"),
    "skills": (Kind.NONE, False, "put the skills' texts into prompt.md after you have read them"),
    "plugins": (Kind.NONE, False, "build them into an image after you have read them"),
    "mcp-scripts": (Kind.NONE, False, "build an MCP server image, and declare it under tools:"),
    "safe-inputs": (Kind.NONE, False, "build an MCP server image, and declare it under tools:"),
    "secrets": (Kind.STRICTER, False, "an agent never gets a secret; doors and sinks have their own"),
    "excluded-env": (Kind.STRICTER, False, "a cell has no variable but those under env:"),
    "secret-masking": (
        Kind.NONE,
        True,
        "scan finds known kinds of secrets and the run's own; review by hand for others",
    ),
    "threat-detection-suppress": (Kind.STRICTER, False, "no check is suppressed"),
    "observability": (Kind.NONE, False, "read events.jsonl of the run"),
    "github-app": (Kind.STRICTER, False, "no token is minted; sinks use secrets of their own"),
    "features": (Kind.NONE, False, "switches of the original's compiler"),
    "experiments": (Kind.NONE, False, "import one variant a time"),
    "jobs": (Kind.NONE, True, "they may decide whether the agent runs; do that before `casemate run`"),
    "steps": (Kind.NONE, False, "run them before, and declare their results under inputs:"),
    "pre-steps": (Kind.NONE, False, "run them before, and declare their results under inputs:"),
    "pre-agent-steps": (Kind.NONE, False, "run them before, and declare their results under inputs:"),
    "post-steps": (Kind.NONE, False, "run them after; the stage's files are under artifacts/"),
    "docker-image-pull-policy": (Kind.STRICTER, False, "images are used by digest, and never pulled during a run"),
    "work-queue-policy": (Kind.NONE, True, "keep this schedule where you start runs"),
}

# engine: provider, model, variable of the key, what changed
ENGINES: dict[str, tuple[str, str, str, str]] = {
    "copilot": ("openai", "gpt-4.1", "OPENAI_API_KEY", "Copilot is not a provider here; OpenAI stands in"),
    "claude": ("anthropic", "claude-sonnet-4", "ANTHROPIC_API_KEY", "the Claude program is not started by itself"),
    "codex": ("openai", "gpt-4.1", "OPENAI_API_KEY", "the Codex program is not started by itself"),
    "gemini": ("gemini", "gemini-2.5-flash", "GEMINI_API_KEY", "the Gemini program is not started by itself"),
}
_AGENT = "stages[0].run names agent.py, which you provide; state the model's price"

_ENGINE_KEYS: dict[str, tuple[Kind, bool, str]] = {
    "version": (Kind.NONE, False, "the agent program is in the image; choose its version there"),
    "args": (Kind.NONE, False, "write the arguments into stages[0].run"),
    "command": (Kind.NONE, False, "write the command into stages[0].run"),
    "driver": (Kind.NONE, False, "write the command into stages[0].run"),
    "config": (Kind.NONE, False, "build the configuration into the image"),
    "agent": (Kind.NONE, False, "put the agent file's text into prompt.md"),
    "user-agent": (Kind.NONE, False, "nothing to do"),
    "steps": (Kind.NONE, False, "build what they do into agent.py or its image"),
    "error_patterns": (Kind.NONE, False, "a stage's outcome says how it ended"),
    "extensions": (Kind.NONE, False, "build them into the image after you have read them"),
    "harness": (Kind.NONE, False, "use retry: on the stage"),
    "concurrency": (Kind.NONE, True, "start one run at a time, for instance by a lock around `casemate run`"),
    "max-continuations": (Kind.NONE, True, "not counted; limits.calls ends a stage"),
    "tool-profile": (Kind.NONE, True, "provide an image that has only these programs"),
    "mcp": (Kind.NONE, False, "the MCP door has its own time limits"),
    "auth": (Kind.NONE, False, "models.agent.secret names the key"),
}


def read_top(data: dict[str, Any], ledger: Ledger, draft: Draft) -> None:
    """Note every top-level key that stands alone."""
    for key, value in data.items():
        if key in FIXED:
            kind, restriction, text = FIXED[key]
            ledger.add((key,), kind, text, restriction=restriction)
        elif key in READERS:
            READERS[key](value, ledger, draft)


def read_defaults(data: dict[str, Any], ledger: Ledger) -> None:
    """Note what the original does when a key is not written."""
    if "engine" not in data:
        ledger.implied(("engine",), Kind.APPROXIMATED, f"{ENGINES['copilot'][3]}; {_AGENT}")
    if "timeout-minutes" not in data:
        ledger.implied(("timeout-minutes",), Kind.MAPPED, "20 minutes, the original's default, as limits.wall")
    if "max-turns" not in data:
        ledger.implied(("max-turns",), Kind.APPROXIMATED, "500 turns, the original's default, as calls to the model")
    if "max-ai-credits" not in data:
        text = "1000 credits, the original's default, as budget.usd at USD 0.01 each; see that this is your price"
        ledger.implied(("max-ai-credits",), Kind.APPROXIMATED, text)
    if "network" not in data:
        text = "the original opens its infrastructure hosts; here nothing is open"
        ledger.implied(("network",), Kind.STRICTER, text)


def _name(value: Any, ledger: Ledger, draft: Draft) -> None:
    if plain(value) and not isinstance(value, list):
        draft.name = slug(str(value))
        ledger.mapped(("name",), "name:, in the form that names have here")


def _comment(key: str) -> Callable[[Any, Ledger, Draft], None]:
    def read(value: Any, ledger: Ledger, draft: Draft) -> None:
        if isinstance(value, str):
            draft.comments += [clean(line, 110) for line in value.splitlines()[:20]]
            ledger.mapped((key,), "a comment at the top of workflow.yaml")

    return read


def _strict(value: Any, ledger: Ledger, _draft: Draft) -> None:
    if value is True:
        ledger.mapped(("strict",), "there is no other mode")
    else:
        ledger.stricter(("strict",), "there is no lax mode")


def _timeout(key: str) -> Callable[[Any, Ledger, Draft], None]:
    def read(value: Any, ledger: Ledger, draft: Draft) -> None:
        if type(value) is int and value > 0:
            draft.wall_minutes = min(value, MAX_MINUTES)
            if value <= MAX_MINUTES:
                ledger.mapped((key,), "limits.wall and budget.wall")
            else:
                ledger.stricter((key,), f"limits.wall, at most {MAX_MINUTES} minutes")
        else:
            ledger.blocked((key,), "not a number; 20 minutes stand in limits.wall, see that this is right")

    return read


def _turns(path: tuple[str, ...]) -> Callable[[Any, Ledger, Draft], None]:
    def read(value: Any, ledger: Ledger, draft: Draft) -> None:
        if type(value) is int and 0 < value <= 1_000_000:
            draft.calls = min(draft.calls, value)
            ledger.approximated(path, "limits.calls: calls to the model are counted, calls of tools are not")
        else:
            ledger.blocked(path, f"not a number; {draft.calls} calls stand in limits.calls, see that this is right")

    return read


def _credits(value: Any, ledger: Ledger, draft: Draft) -> None:
    path = ("max-ai-credits",)
    factor = {"k": 1_000, "m": 1_000_000}
    text = str(value).lower()
    number, unit = (text[:-1], factor[text[-1]]) if text[-1:] in factor else (text, 1)
    if isinstance(value, str | int) and number.isascii() and number.isdigit() and len(number) < 9:
        draft.usd = min(int(number) * unit * 0.01, 1_000_000.0)
        ledger.approximated(path, "budget.usd at USD 0.01 a credit; see that this is your price")
    elif type(value) is int and value < 0:
        ledger.stricter(path, "a budget cannot be switched off; USD 10 stand in budget.usd")
    else:
        ledger.blocked(path, "not a number; USD 10 stand in budget.usd, see that this is right")


def _env(value: Any, ledger: Ledger, draft: Draft) -> None:
    if not isinstance(value, dict) or not value:
        ledger.mapped(("env",), "no variable")
    for key, item in mapping(value).items():
        path = ("env", key)
        text = str(item).lower() if isinstance(item, bool) else str(item)
        named = key.isascii() and key.isidentifier() and len(key) <= 100
        if isinstance(item, str | int | float) and "${{" not in text and named and len(text) <= 4000:
            draft.env[key] = text
            ledger.mapped(path, "stages[0].env")
        else:
            ledger.stricter(path, "not set: an expression is not evaluated here; declare an input instead")


def _engine(value: Any, ledger: Ledger, draft: Draft) -> None:
    settings = mapping(value)
    wanted = settings.get("id", value)
    known = ENGINES.get(wanted) if isinstance(wanted, str) else None
    draft.provider, draft.model, draft.key, changed = known or (
        *ENGINES["copilot"][:3],
        "this engine is not known; OpenAI stands in",
    )
    ledger.add(("engine",), Kind.APPROXIMATED, f"{changed}; {_AGENT}", whole=not settings)
    for key, item in settings.items():
        path = ("engine", key)
        if key == "id":
            ledger.approximated(path, f"models.agent.provider: {draft.provider}")
        elif key == "model" and isinstance(item, str) and plain(item) and 0 < len(item) <= 200:
            draft.model = clean(item, 200)
            ledger.approximated(path, "models.agent.model; `casemate check` says whether the registry knows it")
        elif key == "max-turns":
            _turns(path)(item, ledger, draft)
        elif key == "env":
            ledger.stricter(path, "not set; write what agent.py needs into stages[0].env")
        elif key in _ENGINE_KEYS:
            kind, restriction, text = _ENGINE_KEYS[key]
            ledger.add(path, kind, text, restriction=restriction)


def _permissions(value: Any, ledger: Ledger, _draft: Draft) -> None:
    read_only = "an agent has no token; it reads by the tools of its stage"
    texts = {
        "read": read_only,
        "write": "an agent has no token; what it writes it proposes, and customs decides",
        "none": "an agent has no token",
    }
    if not isinstance(value, dict) or not value:
        ledger.stricter(("permissions",), texts["write" if "write" in str(value) else "read"])
    for scope, level in mapping(value).items():
        kind = Kind.MAPPED if level == "none" else Kind.STRICTER
        ledger.add(("permissions", scope), kind, texts.get(str(level), read_only))


def _checkout(value: Any, ledger: Ledger, _draft: Draft) -> None:
    if value is False:
        ledger.mapped(("checkout",), "no repository is given to the agent")
    else:
        ledger.lost(("checkout",), "check the repository out before, and declare the folder under inputs:")


def _sandbox(value: Any, ledger: Ledger, _draft: Draft) -> None:
    off = value is False or mapping(value).get("agent") is False
    if off:
        ledger.stricter(("sandbox",), "a cell cannot be switched off")
    elif isinstance(value, dict) and value.keys() - {"agent"}:
        ledger.blocked(("sandbox",), "the cell has its own rules; see that they are as narrow as these")
    else:
        ledger.mapped(("sandbox",), "a cell: no network but its doors, no capability, a read-only root")


READERS: dict[str, Callable[[Any, Ledger, Draft], None]] = {
    "name": _name,
    "description": _comment("description"),
    "intent": _comment("intent"),
    "strict": _strict,
    "timeout-minutes": _timeout("timeout-minutes"),
    "timeout_minutes": _timeout("timeout_minutes"),
    "max-turns": _turns(("max-turns",)),
    "max-runs": _turns(("max-runs",)),
    "max-ai-credits": _credits,
    "env": _env,
    "engine": _engine,
    "permissions": _permissions,
    "checkout": _checkout,
    "sandbox": _sandbox,
}
