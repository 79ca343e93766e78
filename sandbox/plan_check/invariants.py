"""plan_check: invariants over a finished plan. It shares no code with the compiler, and believes nothing it says.

It reads the plan as plain JSON and states, one function an invariant, what must hold for the plan to be safe to run.
A plan file from anywhere passes through here before it is run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from sandbox.plan_check.hosts import host_problems, network_problems
from sandbox.plan_check.models import ceilings_hold, detours_end, detours_keep_the_wire, rates_are_limits, reached
from sandbox.plan_check.sinks import sink_problems
from sandbox.plan_check.tools import texts_are_named, tool_rules_narrow

HOLDERS = {"firewall", "llm", "gateway", "customs"}
TRUSTED = {f"casemate/{role}" for role in ("relay", "firewall", "llm", "gateway", "customs")}
_SHA = re.compile(r"sha256:[0-9a-f]{64}\Z")
_CELL_ENV = re.compile(
    r"(LD_.*|HOME|TMPDIR|CASEMATE_.*|(OPENAI|ANTHROPIC|GEMINI|GOOGLE|GOOGLE_GEMINI)_(BASE_URL|API_KEY)|NODE_OPTIONS"
    r"|PYTHONPATH|(no|http|https|all)_proxy|(NO|HTTP|HTTPS|ALL)_PROXY)\Z"
)
_SECRET_ENV = re.compile(r"(?!(LD_.*|HOME|TMPDIR|PATH|NODE_OPTIONS|PYTHONPATH|.*_PROXY)\Z)[A-Z][A-Z0-9_]{0,63}\Z")

_HEADER = re.compile(
    r"(?!(proxy-.*|host|connection|content-length|transfer-encoding|te|trailer|upgrade|expect|keep-alive"
    r"|accept-encoding|http2-settings)\Z)[a-z][a-z0-9-]{0,63}\Z"
)

Problem = str
Json = dict[str, Any]


def violations(plan: Json) -> list[Problem]:
    """Return what is wrong with a plan, in words; an empty list means that every invariant holds."""
    found: list[Problem] = []
    for invariant in INVARIANTS:
        try:
            found += invariant(plan)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            found.append(f"{invariant.__name__}: the plan lacks or garbles {error}")
    return found


def secrets_have_one_holder(plan: Json) -> Iterator[Problem]:
    """Every secret is held by exactly one trusted process, that of its user, and goes to one destination."""
    names = [secret["name"] for secret in plan["secrets"]]
    for name in {n for n in names if names.count(n) > 1}:
        yield f"secret {name} has more than one holder"
    users = list(_users(plan))
    for secret in plan["secrets"]:
        mine = {(holder, where) for name, holder, where in users if name == secret["name"]}
        if secret["holder"] not in HOLDERS:
            yield f"secret {secret['name']} is held by {secret['holder']}"
        if not mine:
            yield f"secret {secret['name']} is used by nothing"
        elif mine != {(secret["holder"], secret["destination"])}:
            yield f"secret {secret['name']} does not go to the one place that uses it"
    for name, holder, _ in users:
        if name not in names:
            yield f"{holder} uses the secret {name}, which nobody holds"


def _users(plan: Json) -> Iterator[tuple[str, str, str]]:
    for model in plan["models"]:
        if model["secret"] is not None:
            yield model["secret"], "llm", model["host"]
    for owner in (*plan["stages"], *plan["tools"]):
        for rule in owner["egress"]:
            if rule["credential"] is not None:
                yield rule["credential"]["secret"], "firewall", rule["host"]
    for tool in plan["tools"]:
        if tool["secret"] is not None:
            host = re.match(r"https://([^/:]+)", (tool["oauth"] or {}).get("token_url") or tool["url"] or "")
            sink = any(output["target"].get("server") == tool["name"] for output in plan["outputs"])
            yield tool["secret"], "customs" if sink else "gateway", host.group(1) if host else tool["name"]
    for output in plan["outputs"]:
        if output["secret"] is not None:
            t = output["target"]
            where = t.get("url") or t.get("repository") or t.get("server") or output["path"]
            if output["git"] is not None and output["git"]["pull_request"] is not None:
                where += f" and {output['git']['pull_request']['api']}"
            yield output["secret"], "customs", where


def agents_hold_nothing(plan: Json) -> Iterator[Problem]:
    """No stage names a secret, and none overrides what the cell sets."""
    names = {secret["name"] for secret in plan["secrets"]}
    for stage in plan["stages"]:
        if "secrets" in stage or "secret" in stage:
            yield f"stage {stage['name']} holds a secret"
        for key, value in stage["env"].items():
            if _CELL_ENV.match(key):
                yield f"stage {stage['name']} overrides {key}"
            if value in names:
                yield f"stage {stage['name']} is told of a secret in {key}"


def egress_names_hosts(plan: Json) -> Iterator[Problem]:
    """Every egress rule names a host: no address, nothing wider than one label below two."""
    for owner in (*plan["stages"], *plan["tools"]):
        for rule in owner["egress"]:
            yield from (f"{owner['name']}: {p}" for p in host_problems(rule["host"]))
            if rule["scheme"] not in ("http", "https", "tcp") or not 0 < rule["port"] < 65536:
                yield f"{owner['name']}: rule for {rule['host']} has no scheme or port"
            yield from (f"{owner['name']}: {p}" for p in network_problems(rule["addresses"]))
            yield from (f"{owner['name']}: {p}" for p in _inspection_problems(rule))
    for model in plan["models"]:
        if (model["local"] is None) == model["host"].endswith(".local"):
            yield f"model {model['alias']} is neither local nor remote"
        yield from (f"model {model['alias']}: {p}" for p in network_problems(model["addresses"]))
        if model["local"] is None:
            yield from (f"model {model['alias']}: {p}" for p in host_problems(model["host"]))
            if model["host"].startswith("*"):
                yield f"model {model['alias']} has a pattern for a host"


def ports_lead_to_one_place(plan: Json) -> Iterator[Problem]:
    """A `tcp` rule is an MCP server's in a container: one host and a port of its own."""
    for stage in plan["stages"]:
        if any(rule["scheme"] == "tcp" for rule in stage["egress"]):
            yield f"stage {stage['name']} has a port of its own"
    for tool in plan["tools"]:
        rules = [rule for rule in tool["egress"] if rule["scheme"] == "tcp"]
        ports = [rule["port"] for rule in rules]
        if len(set(ports)) != len(ports) or len(ports) > 4 or 3128 in ports:
            yield f"tool {tool['name']}: its ports are not one for each destination"
        if any(rule["host"].startswith("*") for rule in rules):
            yield f"tool {tool['name']}: a port that leads to more than one host"


def servers_get_one_secret_in_one_way(plan: Json) -> Iterator[Problem]:
    """A server has its secret in a file and perhaps a variable; elsewhere in a header, or exchanged, over TLS."""
    for tool in plan["tools"]:
        if tool["secret_env"] is not None:
            named = _SECRET_ENV.match(tool["secret_env"])
            if tool["image"] is None or tool["secret"] is None or not tool["run"] or not named:
                yield f"tool {tool['name']}: {tool['secret_env']} is no place for a secret"
        if tool["url"] is not None and tool["egress"]:
            yield f"tool {tool['name']} is elsewhere, and connects from here"
        if (tool["header"] or tool["oauth"]) and (tool["url"] is None or tool["secret"] is None):
            yield f"tool {tool['name']} says who it is without a secret, or to nobody"
        if tool["header"] is not None and (tool["oauth"] is not None or not _HEADER.match(tool["header"])):
            yield f"tool {tool['name']}: {tool['header']!r} is no header for a secret"
        for url in (tool["url"], tool["oauth"] and tool["oauth"]["token_url"]):
            if url and not re.match(r"https://[a-z0-9.-]+(:[0-9]+)?(/[^?#@\s]*)?\Z", url):
                yield f"tool {tool['name']}: {url!r} has more than one reading"


def _inspection_problems(rule: Json) -> Iterator[Problem]:
    """Yield what a rule limits without seeing it, and a secret that it would give away."""
    seen = rule["scheme"] == "http" or rule["inspect"]
    if (rule["methods"] or rule["paths"]) and not seen:
        yield "methods and paths in an encrypted tunnel cannot be seen"
    if rule["inspect"] and rule["scheme"] != "https":
        yield "only https is inspected"
    for path in rule["paths"]:
        segments = path.split("/")
        plain = not set(path) & set("%\\?#;") and path.isprintable() and path.isascii() and " " not in path
        if not plain or segments[0] or "" in segments[1:-1] or {".", ".."} & set(segments):
            yield f"the path {path!r} has more than one reading"
    credential, quota = rule["credential"], rule["quota"]
    if credential is not None:
        if not rule["inspect"] or rule["host"].startswith("*"):
            yield "a secret for requests that are not inspected, or for more than one host"
        if not _HEADER.match(credential["header"]):
            yield f"{credential['header']!r} is no header for a secret"
        if not re.fullmatch(r"[A-Za-z0-9-]*", credential["scheme"]):
            yield f"{credential['scheme']!r} is no scheme of a header"
    if quota is not None and not (quota["requests"] != 0 and quota["bytes"] != 0):
        yield "a quota of nothing"


def inspection_has_no_way_around(plan: Json) -> Iterator[Problem]:
    """No host that one rule inspects is reached through an opaque tunnel by another rule of the same stage."""
    for owner in (*plan["stages"], *plan["tools"]):
        tls = [rule for rule in owner["egress"] if rule["scheme"] == "https"]
        for seen in (rule for rule in tls if rule["inspect"]):
            for other in tls:
                hosts = {seen["host"], other["host"]}
                wide = {f"*.{h.partition('.')[2]}" for h in hosts if not h.startswith("*.")}
                same = len(hosts) == 1 or bool(hosts & wide)
                if not other["inspect"] and same and seen["port"] == other["port"]:
                    yield f"{owner['name']}: {other['host']} is inspected by one rule and not by another"


def authorities_are_certificates(plan: Json) -> Iterator[Problem]:
    """What is trusted beside the system's authorities is one certificate each, and no key."""
    for text in plan["trust"]:
        inside = text.removeprefix("-----BEGIN CERTIFICATE-----\n").removesuffix("\n-----END CERTIFICATE-----\n")
        if not re.fullmatch(r"[A-Za-z0-9+/=\n]+", inside):
            yield "a trusted authority is not one certificate"


def outputs_are_bounded(plan: Json) -> Iterator[Problem]:
    """Every output has a closed object schema, a quota, a scan for secrets, and a path of its own in the project."""
    paths = [output["path"] for output in plan["outputs"]]
    for output in plan["outputs"]:
        name, schema, path = output["name"], output["schema"], output["path"]
        if (
            schema.get("type") != "object"
            or not schema.get("properties")
            or schema.get("additionalProperties") is not False
        ):
            yield f"output {name} has an open schema"
        if not output["per_run"] > 0 or not output["max_bytes"] > 0:
            yield f"output {name} has no quota"
        if "secrets" not in output["scan"]:
            yield f"output {name} is not scanned for secrets"
        if path.startswith("/") or ".." in path.split("/") or "\\" in path or (path and paths.count(path) > 1):
            yield f"output {name} has a bad path {path!r}"
        if output["sink"] == "dataset" and not path.endswith((".jsonl", ".parquet")[output["format"] == "parquet"]):
            yield f"output {name}: {path!r} is not {output['format']}"
        if output["sink"] not in _SINKS or not all(
            {**output["target"], "path": path}.get(k) for k in _SINKS[output["sink"]]
        ):
            yield f"output {name}: sink {output['sink']} lacks a setting"
        yield from (f"output {name}: {problem}" for problem in sink_problems(output))
        if not any(name in stage["outputs"] for stage in plan["stages"]):
            yield f"output {name} is proposed by nobody"
        for quota in ("per_day", "per_minute"):
            if output[quota] is not None and not output[quota] > 0:
                yield f"output {name}: no rows {quota}"


def decisions_are_possible(plan: Json) -> Iterator[Problem]:
    """An approval can be given by the people who are named; agents are not given what they must not write."""
    given = {item["digest"] for item in plan["inputs"]}
    for output in plan["outputs"]:
        name = output["name"]
        if (who := output["approvers"]) and not 0 < who["need"] <= len(set(who["keys"].values())) == len(who["keys"]):
            yield f"output {name} cannot be approved by {who['need']} of its approvers"
        yield from (f"output {name}: agents get {p['path']}" for p in output["probes"] if p["digest"] in given)


def scans_reject(plan: Json) -> Iterator[Problem]:
    """What a scan finds is rejected unless the plan says otherwise; links lead to hosts that a rule may name."""
    for output in plan["outputs"]:
        name = output["name"]
        for kind, action in output["findings"].items():
            if kind not in output["scan"] or (action == "redact" and (kind != "pii" or output["git"] is not None)):
                yield f"output {name} cannot {action} {kind}"
        for host in output["hosts"]:
            yield from (f"output {name}: {problem}" for problem in host_problems(host))


_SINKS = {
    "dataset": ["path"],
    "file": ["path"],
    "git": ["repository"],
    "sql": ["url", "table"],
    "mlflow": ["url", "registered_model", "source"],
    "http": ["url"],
    "mcp": ["server", "tool"],
}


def images_are_pinned(plan: Json) -> Iterator[Problem]:
    """Every image that will run is there, by digest, once."""
    images = {image["name"]: image["digest"] for image in plan["images"]}
    if len(images) != len(plan["images"]):
        yield "an image is pinned twice"
    needed = TRUSTED | {stage["image"] for stage in plan["stages"]}
    needed |= {f"casemate/model-{m['local']}" for m in plan["models"] if m["local"] is not None}
    needed |= {tool["image"] for tool in plan["tools"] if tool["image"] is not None}
    needed |= {"casemate/git" for output in plan["outputs"] if output["sink"] == "git"}
    for name in sorted(needed | images.keys()):
        if not _SHA.match(images.get(name, "")):
            yield f"image {name} is not pinned"
        if name not in needed:
            yield f"image {name} is used by nothing"


def references_exist(plan: Json) -> Iterator[Problem]:
    """Names are unique, references lead somewhere, and no stage needs itself in the end."""
    kinds = {
        kind: [item[key] for item in plan[kind]]
        for kind, key in (
            ("stages", "name"),
            ("outputs", "name"),
            ("inputs", "name"),
            ("models", "alias"),
            ("tools", "name"),
        )
    }
    for kind, names in kinds.items():
        yield from (f"{kind}: {n} twice" for n in {n for n in names if names.count(n) > 1})
    for stage in plan["stages"]:
        for key, kind in (("needs", "stages"), ("outputs", "outputs"), ("inputs", "inputs"), ("models", "models")):
            yield from (f"stage {stage['name']}: no {kind} {n}" for n in stage[key] if n not in kinds[kind])
    done: set[str] = set()
    waiting = {stage["name"]: set(stage["needs"]) for stage in plan["stages"]}
    while ready := [name for name, needs in waiting.items() if needs <= done]:
        done.update(ready)
        for name in ready:
            del waiting[name]
    if waiting:
        yield f"stages need each other: {', '.join(sorted(waiting))}"


def profiles_hold(plan: Json) -> Iterator[Problem]:
    """`explore` has no egress and writes one report at most; `ci-fork` touches no secret."""
    by_name = {
        kind: {item[key]: item for item in plan[kind]}
        for kind, key in (("models", "alias"), ("outputs", "name"), ("tools", "name"))
    }
    for stage in plan["stages"]:
        outputs = [by_name["outputs"][name] for name in stage["outputs"]]
        if stage["profile"] == "explore":
            if stage["egress"] or len(outputs) > 1 or any(o["sink"] not in ("file", "dataset") for o in outputs):
                yield f"stage {stage['name']}: more than its profile allows"
        elif stage["profile"] == "ci-fork":
            used = (
                [by_name["models"][n] for n in reached(plan, stage["models"])]
                + [by_name["tools"][n] for n in stage["tools"]]
                + outputs
            )
            carried = any(rule["credential"] is not None for rule in stage["egress"])
            if carried or any(item["secret"] is not None for item in used):
                yield f"stage {stage['name']}: a secret, against its profile"
        elif stage["profile"] != "default":
            yield f"stage {stage['name']}: unknown profile"


def teachers_are_allowed(plan: Json) -> Iterator[Problem]:
    """A student is only exposed to humans or to other checkpoints, unless an exception is pinned."""
    student = plan["student"]
    if student is not None and student["verdict"] not in ("human", "cross") and not student["exceptions"]:
        yield f"student {student['model']}: exposure {student['verdict']}"


def source_is_pinned(plan: Json) -> Iterator[Problem]:
    """The plan says by digest from which workflow, files, registry and policies it was compiled."""
    source = plan["source"]
    for name, value in {"workflow": source["digest"], "registry": source["registry"], "policies": source["policies"],
                        **source["files"]}.items():  # fmt: skip
        if not isinstance(value, str) or not _SHA.match(value):
            yield f"{name} is not pinned"


def inputs_are_flat(plan: Json) -> Iterator[Problem]:
    """An input has a digest and a plain file name of its own."""
    targets = [item["target"] for item in plan["inputs"]]
    for item in plan["inputs"]:
        if not _SHA.match(item["digest"]) or "/" in item["target"] or item["target"] in ("", ".", ".."):
            yield f"input {item['name']} is not pinned to a plain name"
        if targets.count(item["target"]) > 1:
            yield f"input {item['name']} shares its name in /inputs"


INVARIANTS: tuple[Callable[[Json], Iterator[Problem]], ...] = (
    secrets_have_one_holder,
    agents_hold_nothing,
    egress_names_hosts,
    inspection_has_no_way_around,
    ports_lead_to_one_place,
    servers_get_one_secret_in_one_way,
    authorities_are_certificates,
    tool_rules_narrow,
    texts_are_named,
    outputs_are_bounded,
    decisions_are_possible,
    scans_reject,
    images_are_pinned,
    references_exist,
    ceilings_hold,
    detours_end,
    detours_keep_the_wire,
    rates_are_limits,
    profiles_hold,
    teachers_are_allowed,
    inputs_are_flat,
    source_is_pinned,
)
