# ruff: noqa: E501 - a case is a line
"""Wrong workflows: each is refused with the right code, at the right line and column.

A case replaces one piece of a sound workflow; the finding is expected where `place` stands in the result.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.language.findings import FindingsError, Severity
from sandbox.language.source import parse
from sandbox.language.workflow import read
from sandbox.project import open_project
from tests.sandbox.conftest import WORKFLOW

FAKE_TOKEN = "-----BEGIN RSA " + "PRIVATE KEY-----"

# (replace this, by that, code, the finding stands at the first occurrence of this text)
MLFLOW = "sink: {kind: mlflow, url: 'https://a.example.com', source: 'a:/x', registered_model: "
CASES: list[tuple[str, str, str, str]] = [
    # form
    ("name: example", "name: example\nname: other", "CSM-C003", "name: other"),
    ("usd: 1.5", "usd: 1.5, usd: 2", "CSM-C003", "usd: 2"),
    ("name: example", "name: example\nshards: 3", "CSM-C005", "shards: 3"),
    ("wall: 90s", "wall: 90s, memroy: 1GiB", "CSM-C005", "memroy"),
    ("budget: {usd: 1.5, tokens: 100_000, calls: 100, wall: 20m}", "", "CSM-C006", "casemate: 1"),
    ("usd: 1.5, ", "", "CSM-C006", "{tokens: 100_000"),
    ("    image: casemate/agent-python\n    run: [python, /inputs/agent.py]\n    needs", "    run: [a]\n    needs", "CSM-C006", "name: review"),
    ("    quota: {per_run: 10}\n", "", "CSM-C006", "sink: {kind"),
    ("    schema: rows.json\n", "", "CSM-C006", "sink: {kind"),
    ("casemate: 1", "casemate: 2", "CSM-C007", "2"),
    ("name: example", "name: Example!", "CSM-C007", "Example!"),
    ("wall: 20m", "wall: 20 minutes", "CSM-C007", "20 minutes"),
    ("memory: 256MiB", "memory: 256", "CSM-C007", "256, pids"),
    ("memory: 256MiB", "memory: 256MB", "CSM-C007", "256MB"),
    ("cpu: 0.5", "cpu: 0", "CSM-C007", "0, memory"),
    ("usd: 1.5", "usd: -1", "CSM-C007", "-1"),
    ("calls: 100", "calls: 1.5", "CSM-C007", "1.5, wall"),
    ("calls: 100", "calls: yes", "CSM-C007", "yes"),
    ("run: [python, /inputs/agent.py]\n    models", "run: python /inputs/agent.py\n    models", "CSM-C007", "python /inputs"),
    ("run: [python, /inputs/agent.py]\n    models", "run: []\n    models", "CSM-C007", "[]"),
    ("provider: local", "provider: azure", "CSM-C007", "azure"),
    ("kind: dataset", "kind: sqlite", "CSM-C007", "sqlite"),
    ("kind: dataset", "kind: sql", "CSM-C049", "{kind: sql"),
    ("path: out/rows.parquet", "path: out/rows.csv", "CSM-C049", "out/rows.csv"),
    ("per_run: 10", "per_run: 0", "CSM-C007", "0}"),
    ("  teacher:", "  Teacher:", "CSM-C007", "Teacher:"),
    ("from: env", "from: vault", "CSM-C007", "vault"),
    ("scheme: http", "scheme: ftp", "CSM-C007", "ftp"),
    ("methods: [GET]", "methods: [GET], inspect: true", "CSM-C007", "true"),
    ("methods: [GET]", "paths: [/a/../b]", "CSM-C007", "[/a/../b]"),
    ("methods: [GET]", "paths: [/a//b]", "CSM-C007", "[/a//b]"),
    ("methods: [GET]", "paths: [/a%2fb]", "CSM-C007", "[/a%2fb]"),
    ("methods: [GET]", "paths: ['/a?b']", "CSM-C007", "['/a?b']"),
    ("methods: [GET]", "credential: {header: Authorization, secret: openai_key}", "CSM-C007", "{header"),
    ("methods: [GET]", "quota: {}", "CSM-C007", "{}"),
    ("methods: [GET]", "quota: {requests: 0}", "CSM-C007", "0}"),
    ("methods: [GET]", "quota: {bytes: 10}", "CSM-C007", "10}"),
    ("methods: [GET]", "methods: [TRACE]", "CSM-C007", "TRACE"),
    ("models: [teacher, judge]", "models: [teacher, teacher]", "CSM-C007", "[teacher, teacher]"),
    # YAML that has two readings
    ("models: [teacher, judge]", "models: &m [teacher, judge]", "CSM-C004", "&m"),
    ("models: [teacher, judge]", "models: *m", "CSM-C004", "*m"),
    ("name: example", "name: !!python/name:os.system example", "CSM-C004", "!!python"),
    ("name: example", "name: !!str example", "CSM-C004", "!!str"),
    ("  openai_key: {from: env, key: CASEMATE_TEST_KEY}", "  <<: {a: 1}", "CSM-C004", "<<"),
    ("name: example", "name: [", "CSM-C002", "secrets:"),
    ("name: example", "name: example\n---\nname: b", "CSM-C002", "---"),
    ("name: example", "? [a, b]\n: 1\nname: example", "CSM-C002", "[a, b]"),
    ("name: example", "name: exa\u200bmple", "CSM-C034", "\u200b"),
    ("name: example", "name: example # \u202e hidden", "CSM-C034", "\u202e"),
    # meaning
    ("name: review", "name: generate", "CSM-C028", "generate\n    image: casemate/agent-python\n    run: [python, /inputs/agent.py]\n    needs"),
    ("needs: [generate]", "needs: [genarate]", "CSM-C014", "genarate"),
    ("needs: [generate]", "needs: [review]", "CSM-C015", "[review]"),
    ("model: gemma-3-270m", "model: gemma-3-271m", "CSM-C011", "gemma-3-271m"),
    ("model: gpt-4o-mini", "model: gpt-9", "CSM-C011", "gpt-9"),
    ("model: gpt-4o-mini", "model: gemma-3-270m", "CSM-C011", "openai-compatible"),
    ("models: [teacher, judge]", "models: [teacher, jugde]", "CSM-C012", "jugde"),
    ("    price: {input: 0.15, output: 0.6}\n", "", "CSM-C026", "judge:"),
    ("  teacher:\n", "  far: {provider: anthropic, model: claude-haiku-4-5, price: {input: 1, output: 5}}\n  teacher:\n    fallback: [far]\n", "CSM-C053", "far]"),
    ("  teacher:\n", "  far: {provider: gemini, model: gemini-2.5-pro, price: {input: 1, output: 5}}\n  teacher:\n    route: {small: {below: 9, use: far}}\n", "CSM-C053", "far}}\n    provider"),
    ("cpu: 0.5", "rate: {requests: 0/min}", "CSM-C007", "0/min"),
    ("cpu: 0.5", "rate: {requests: 5/h}", "CSM-C007", "5/h"),
    ("wall: 20m", "wall: 20m, per_day: {usd: 1}", "CSM-C030", "1}"),
    ("wall: 20m", "wall: 20m, per_day: {calls: 99}", "CSM-C030", "99}"),
    ("cpu: 0.5", "rate: {}", "CSM-C007", "{}"),
    ("cpu: 0.5", "call: {tokens: 100_001}", "CSM-C030", "100_001"),
    ("cpu: 0.5", "call: {usd: 0.6}", "CSM-C030", "0.6}"),
    ("output: 0.6}", "output: 0.6, cache_read: 0.2}", "CSM-C007", "0.2}"),
    ("output: 0.6}", "output: 0.6, cache_write: 0.1}", "CSM-C007", "0.1}"),
    ("    model: gemma-3-270m\n", "    model: gemma-3-270m\n    max_output_tokens: 999999\n", "CSM-C030", "999999"),
    ("    base_url: https://api.example.com/v1\n", "", "CSM-C006", "provider: openai-compatible"),
    ("https://api.example.com/v1", "http://api.example.com/v1", "CSM-C007", "http://api"),
    ("https://api.example.com/v1", "https://user:pw@api.example.com/v1", "CSM-C007", "https://user"),
    ("https://api.example.com/v1", "https://api.example.com/v1?key=1", "CSM-C007", "https://api"),
    ("https://api.example.com/v1", "https://api.example.com:99999/v1", "CSM-C007", "https://api"),
    ("https://api.example.com/v1", "https://10.0.0.1/v1", "CSM-C020", "https://10"),
    ("https://api.example.com/v1", "https://0x7f.1/v1", "CSM-C020", "https://0x7f"),
    ("https://api.example.com/v1", "https://*.example.com/v1", "CSM-C019", "https://*"),
    ("provider: local", "provider: local\n    base_url: https://x.example.com", "CSM-C007", "https://x"),
    ("host: data.example.com", "host: '*'", "CSM-C019", "'*'"),
    ("host: data.example.com", "host: '*.com'", "CSM-C019", "'*.com'"),
    ("host: data.example.com", "host: '*.*.example.com'", "CSM-C019", "'*.*"),
    ("host: data.example.com", "host: 'api.*.com'", "CSM-C019", "'api.*"),
    ("host: data.example.com", "host: 127.0.0.1", "CSM-C020", "127.0.0.1"),
    ("host: data.example.com", "host: '[::1]'", "CSM-C020", "'[::1]'"),
    ("host: data.example.com", "host: '2130706433'", "CSM-C020", "'2130706433'"),
    ("host: data.example.com", "host: '0x7f000001'", "CSM-C020", "'0x7f"),
    ("host: data.example.com", "host: Data.Example.com", "CSM-C007", "Data.Example"),
    ("host: data.example.com", "host: data.example.com.", "CSM-C007", "data.example.com."),
    ("host: data.example.com", "host: localhost", "CSM-C007", "localhost"),
    ("host: data.example.com", "host: data.example.1om", "CSM-C007", "data.example.1om"),
    ("host: data.example.com", 'host: "data.example.com\\nevil.example.com"', "CSM-C007", '"data.example'),
    ("host: data.example.com", "host: 'user@data.example.com'", "CSM-C007", "'user@"),
    ("host: data.example.com", "host: 'data.example.com/path'", "CSM-C007", "'data.example.com/path"),
    ("host: data.example.com", "host: data.example.com, methods: [GET]", "CSM-C007", "[GET]"),
    ("calls: 10,", "calls: 1000,", "CSM-C030", "1000, usd"),
    ("usd: 0.5}", "usd: 5}", "CSM-C030", "5}"),
    ("    needs: [generate]", "    env: {LD_PRELOAD: /x.so}\n    needs: [generate]", "CSM-C027", "LD_PRELOAD"),
    ("    needs: [generate]", "    env: {NODE_OPTIONS: -r x}\n    needs: [generate]", "CSM-C027", "NODE_OPTIONS"),
    ("    needs: [generate]", "    env: {https_proxy: 'http://e'}\n    needs: [generate]", "CSM-C027", "https_proxy"),
    ("    needs: [generate]", "    env: {OPENAI_API_KEY: sk-something}\n    needs: [generate]", "CSM-C027", "OPENAI_API_KEY"),
    ("    needs: [generate]", "    env: {DB_PASSWORD: hunter2hunter2}\n    needs: [generate]", "CSM-C008", "hunter2"),
    ("    needs: [generate]", f'    env: {{MOTD: "{FAKE_TOKEN}"}}\n    needs: [generate]', "CSM-C008", '"-----BEGIN'),
    ("run: [python, /inputs/agent.py]\n    models", f'run: [python, "{FAKE_TOKEN}"]\n    models', "CSM-C008", '"-----BEGIN'),
    ("secret: openai_key", "secret: openai_kye", "CSM-C009", "openai_kye"),
    ("    secret: openai_key\n", "", "CSM-C010", "openai_key: {from"),
    ("outputs: [rows]", "outputs: [row]", "CSM-C013", "row]"),
    ("    outputs: [rows]\n", "", "CSM-C031", "rows:\n    sink"),
    ("path: seeds.jsonl", "path: ../seeds.jsonl", "CSM-C021", "../seeds.jsonl"),
    ("path: seeds.jsonl", "path: /etc/passwd", "CSM-C021", "/etc/passwd"),
    ("path: seeds.jsonl", "path: absent.jsonl", "CSM-C022", "absent.jsonl"),
    ("path: seeds.jsonl", "path: folder", "CSM-C022", "folder"),
    ("path: seeds.jsonl", "path: link.jsonl", "CSM-C023", "link.jsonl"),
    ("path: seeds.jsonl", "path: linked/seeds.jsonl", "CSM-C023", "linked/seeds"),
    ("path: out/rows.parquet", "path: ../rows.parquet", "CSM-C021", "../rows"),
    ("path: out/rows.parquet", "path: /tmp/rows.parquet", "CSM-C021", "/tmp/rows"),
    ("path: out/rows.parquet", "path: .git/rows.parquet", "CSM-C021", ".git/rows"),
    ("schema: rows.json", "schema: absent.json", "CSM-C016", "absent.json"),
    ("schema: rows.json", "schema: junk.json", "CSM-C016", "junk.json"),
    ("schema: rows.json", "schema: doubled.json", "CSM-C016", "doubled.json"),
    ("schema: rows.json", "schema: open.json", "CSM-C017", "open.json"),
    ("schema: rows.json", "schema: list.json", "CSM-C017", "list.json"),
    ("schema: rows.json", "schema: wrong.json", "CSM-C017", "wrong.json"),
    ("schema: rows.json", "schema: remote.json", "CSM-C018", "remote.json"),
    # the rest of the language
    ("outputs: [rows]", "outputs: [rows]\n    profile: guest", "CSM-C007", "guest"),
    ("    models: [teacher, judge]", "    profile: explore", "CSM-C038", "- {host: data"),
    ("    outputs: [rows]", "    outputs: [rows]\n    models: [judge]\n    profile: ci-fork", "CSM-C038", "judge]\n    profile"),
    ("    outputs: [rows]", "    outputs: [rows]\n    tools: {repo: [read]}", "CSM-C039", "repo: [read]"),
    ("inputs:\n", "tools: {repo: {}}\ninputs:\n", "CSM-C039", "repo: {}"),
    ("inputs:\n", "tools: {repo: {image: a, url: 'https://b.example.com'}}\ninputs:\n", "CSM-C039", "repo: {image"),
    ("inputs:\n", "tools: {repo: {url: 'http://b.example.com'}}\ninputs:\n", "CSM-C039", "'http://b"),
    ("inputs:\n", "tools: {repo: {url: 'https://10.1.2.3/'}}\ninputs:\n", "CSM-C020", "'https://10"),
    ("inputs:\n", "tools: {repo: {image: a, transport: http}}\ninputs:\n", "CSM-C039", "http}"),
    ("inputs:\n", "tools: {repo: {image: a, secret: absent}}\ninputs:\n", "CSM-C009", "absent}"),
    ("inputs:\n", "tools: {repo: {image: a, secret: openai_key}}\ninputs:\n", "CSM-C009", "openai_key}"),
    ("inputs:\n", "tools: {repo: {image: a, args: [--privileged]}}\ninputs:\n", "CSM-C005", "args:"),
    ("inputs:\n", "tools: {repo: {image: a, secret_env: TOKEN}}\ninputs:\n", "CSM-C039", "TOKEN}"),
    ("inputs:\n", "tools: {repo: {url: 'https://b.example.com', egress: [{host: a.example.com}]}}\ninputs:\n", "CSM-C039", "[{host: a.e"),
    ("inputs:\n", "tools: {repo: {image: a, egress: [{host: a.example.com, scheme: tcp}]}}\ninputs:\n", "CSM-C007", "tcp}"),
    ("inputs:\n", "tools: {repo: {image: a, egress: [{host: a.example.com, port: 3128, scheme: tcp}]}}\ninputs:\n", "CSM-C007", "3128"),
    ("host: data.example.com", "host: data.example.com, port: 5432, scheme: tcp", "CSM-C007", "tcp}"),
    ("    secret: openai_key\n", "    secret: openai_key\n    fallback: [absent]\n", "CSM-C043", "absent]"),
    ("    secret: openai_key\n", "    secret: openai_key\n    fallback: [judge]\n", "CSM-C043", "judge]"),
    ("    secret: openai_key\n", "    secret: openai_key\n    route: {small: {below: 9, use: absent}}\n", "CSM-C043", "absent}"),
    ("    secret: openai_key\n", "    secret: openai_key\n    route: {cheap: {below: 9, use: teacher}}\n", "CSM-C005", "cheap"),
    ("    outputs: [rows]", "    outputs: [rows]\n    shards: {over: absent, size: 5}", "CSM-C048", "absent,"),
    ("    outputs: [rows]", "    outputs: [rows]\n    shards: {over: seeds, size: 0}", "CSM-C007", "0}\n"),
    ("    outputs: [rows]", "    outputs: [rows]\n    inputs: []\n    shards: {over: seeds, size: 5}", "CSM-C048", "seeds,"),
    ("    outputs: [rows]", "    outputs: [rows]\n    retry: {attempts: 99}", "CSM-C007", "99}"),
    ("    outputs: [rows]", "    outputs: [rows]\n    retry: {attempts: 2, on: [denied]}", "CSM-C007", "denied"),
    ("{host: data.example.com}", "{ecosystem: cargo}", "CSM-C007", "cargo"),
    ("{host: data.example.com}", "{ecosystem: pip, host: data.example.com}", "CSM-C006", "{ecosystem"),
    ("{host: data.example.com}", "{ecosystem: git-remote}", "CSM-C035", "git-remote"),
    ("{host: data.example.com}", "{host: data.example.com, addresses: [0.0.0.0/0]}", "CSM-C051", "0.0.0.0/0"),
    ("{host: data.example.com}", "{host: data.example.com, addresses: [127.0.0.0/8]}", "CSM-C051", "127.0.0.0/8"),
    ("{host: data.example.com}", "{host: data.example.com, addresses: [10.1.2.3/8]}", "CSM-C051", "10.1.2.3/8"),
    ("{host: data.example.com}", "{host: data.example.com, addresses: [intranet]}", "CSM-C051", "intranet"),
    ("{host: data.example.com}", "{host: data.example.com, addresses: []}", "CSM-C007", "[]"),
    ("    secret: openai_key", "    secret: openai_key\n    addresses: [169.254.0.0/16]", "CSM-C051", "169.254.0.0/16"),
    ("    model: gemma-3-270m", "    model: gemma-3-270m\n    addresses: [10.0.0.0/8]", "CSM-C007", "[10.0.0.0/8]"),
    ("name: example", "name: example\ntrust: [absent.pem]", "CSM-C022", "absent.pem"),
    ("name: example", "name: example\ntrust: [rows.json]", "CSM-C052", "rows.json"),
    ("name: example", "name: example\ntrust: [/etc/ssl/cert.pem]", "CSM-C021", "/etc/ssl/cert.pem"),
    ("{host: data.example.com}", "{host: a.example.com, methods: [GET]}", "CSM-C007", "[GET]"),
    ("{host: data.example.com}", "{host: a.example.com, paths: [/a]}", "CSM-C007", "[/a]"),
    ("{host: data.example.com}", "{host: a.example.com, inspect: true}\n      - {host: a.example.com, port: 443}", "CSM-C007", "{host: a.example.com, port"),
    ("{host: data.example.com}", "{host: '*.example.com', inspect: true}\n      - {host: a.example.com, port: 443}", "CSM-C007", "{host: a.example.com, port"),
    ("{host: data.example.com}", "{host: a.example.com, inspect: true}\n      - {host: '*.example.com', port: 443}", "CSM-C007", "{host: '*.example.com', port"),
    ("{host: data.example.com}", "{host: '*.example.com', inspect: true, credential: {header: Authorization, secret: openai_key}}", "CSM-C007", "{header"),
    ("{host: data.example.com}", "{host: a.example.com, credential: {header: Authorization, secret: openai_key}}", "CSM-C007", "{header"),
    ("{host: data.example.com}", "{host: a.example.com, inspect: true, credential: {header: Host, secret: openai_key}}", "CSM-C007", "{header"),
    ("{host: data.example.com}", "{host: a.example.com, inspect: true, credential: {header: Authorization, secret: openai_key}}", "CSM-C009", "openai_key}}"),
    ("{host: data.example.com}", "{host: a.example.com, inspect: true, credential: {header: Authorization, secret: absent}}", "CSM-C009", "absent"),
    ("{host: data.example.com}", "{ecosystem: pip, inspect: true}", "CSM-C007", "{ecosystem"),
    ("{host: data.example.com}", "{ecosystem: pip, quota: {requests: 1}}", "CSM-C007", "{ecosystem"),
    ("{host: data.example.com}", "{port: 443}", "CSM-C006", "{port"),
    ("host: data.example.com", "host: '*.co.uk'", "CSM-C019", "'*.co.uk'"),
    ("sink: {kind: dataset, path: out/rows.parquet}", "sink: {kind: git, repository: r}", "CSM-C049", "{kind: git"),
    ("sink: {kind: dataset, path: out/rows.parquet}", "sink: {kind: http, url: u, table: t}", "CSM-C049", "t}"),
    ("sink: {kind: dataset, path: out/rows.parquet}", "sink: {kind: git, repository: 'http://git.example.com/a/b', base: main}", "CSM-C049", "'http:"),
    ("sink: {kind: dataset, path: out/rows.parquet}", "sink: {kind: git, repository: 'https://me@git.example.com/a/b', base: main}", "CSM-C049", "'https:"),
    ("sink: {kind: dataset, path: out/rows.parquet}", "sink: {kind: git, repository: 'https://10.0.0.1/a/b', base: main}", "CSM-C020", "'https:"),
    ("sink: {kind: dataset, path: out/rows.parquet}", "sink: {kind: git, repository: 'https://git.example.com/a/b', base: -f}", "CSM-C049", "-f}"),
    ("sink: {kind: dataset, path: out/rows.parquet}", "sink: {kind: git, repository: 'https://git.example.com/a/b', base: main, prefix: main}", "CSM-C049", "main}"),
    ("sink: {kind: dataset, path: out/rows.parquet}", "sink: {kind: git, repository: 'https://git.example.com/a/b', base: casemate/x}", "CSM-C049", "casemate/x}"),
    ("sink: {kind: dataset, path: out/rows.parquet}", "sink: {kind: git, repository: 'https://git.example.com/a/b', base: main, author: nobody}", "CSM-C049", "nobody}"),
    ("sink: {kind: dataset, path: out/rows.parquet}", "sink: {kind: git, repository: 'https://git.example.com/a/b', base: main, user: 'a:b'}", "CSM-C049", "'a:b'}"),
    ("sink: {kind: dataset, path: out/rows.parquet}", "sink: {kind: git, repository: 'https://git.example.com/a/b', base: main, patch: {paths: [../x]}}", "CSM-C049", "../x]"),
    ("sink: {kind: dataset, path: out/rows.parquet}", "sink: {kind: git, repository: 'https://git.example.com/a/b', base: main, patch: {protected: never}}", "CSM-C007", "never"),
    ("sink: {kind: dataset, path: out/rows.parquet}", "sink: {kind: git, repository: 'https://git.example.com/a/b', base: main, pull_request: {forge: sourceforge}}", "CSM-C007", "sourceforge"),
    ("sink: {kind: dataset, path: out/rows.parquet}", "sink: {kind: git, repository: 'https://git.example.com/a/b', base: main, pull_request: {forge: github, api: 'http://a.example.com'}}", "CSM-C049", "{forge"),
    ("sink: {kind: dataset, path: out/rows.parquet}", "sink: {kind: git, repository: 'https://git.example.com/a/b/c', base: main, pull_request: {forge: gitea}}", "CSM-C049", "'https:"),
    ("sink: {kind: dataset, path: out/rows.parquet}", "sink: {kind: git, repository: 'https://git.example.com/a', base: main, pull_request: {forge: gitea}}", "CSM-C049", "'https:"),
    ("sink: {kind: dataset, path: out/rows.parquet}", "sink: {kind: git, repository: 'https://git.example.com/a/b', base: main, pull_request: {forge: pagure}}", "CSM-C049", "pagure"),
    ("sink: {kind: dataset, path: out/rows.parquet}", "sink: {kind: git, repository: 'https://git.example.com/a/b', base: main, user: bot, pull_request: {forge: pagure, labels: [x]}}", "CSM-C049", "[x]"),
    ("sink: {kind: dataset, path: out/rows.parquet}", "sink: {kind: git, repository: 'https://git.example.com/a/b', base: main, user: bot, pull_request: {forge: pagure, draft: true}}", "CSM-C049", "true"),
    ("sink: {kind: dataset, path: out/rows.parquet}", "sink: {kind: git, repository: 'https://git.example.com/forks/a/b', base: main, user: bot, pull_request: {forge: pagure}}", "CSM-C049", "'https:"),
    ("sink: {kind: dataset, path: out/rows.parquet}", "sink: {kind: git, repository: 'https://git.example.com/a/b', base: main, branch: x}", "CSM-C005", "branch"),
    ("sink: {kind: dataset, path: out/rows.parquet}\n    schema: rows.json", "sink: {kind: git, repository: 'https://git.example.com/a/b', base: main}\n    schema: rows.json", "CSM-C049", "rows.json"),
    ("sink: {kind: dataset, path: out/rows.parquet}", "sink: {kind: mcp, server: absent, tool: t}", "CSM-C039", "absent"),
    ("sink: {kind: dataset, path: out/rows.parquet}", "sink: {kind: http, url: 'http://a.example.com/x'}", "CSM-C049", "'http:"),
    ("sink: {kind: dataset, path: out/rows.parquet}", "sink: {kind: http, url: 'https://u@a.example.com/x'}", "CSM-C049", "'https:"),
    ("sink: {kind: dataset, path: out/rows.parquet}", "sink: {kind: http, url: 'https://10.0.0.1/x'}", "CSM-C020", "'https:"),
    ("sink: {kind: dataset, path: out/rows.parquet}", "sink: {kind: http, url: 'https://a.example.com/x', mode: twice}", "CSM-C049", "twice"),
    ("sink: {kind: dataset, path: out/rows.parquet}", "sink: {kind: http, url: 'https://a.example.com/x', addresses: [8.8.8.0/24]}", "CSM-C051", "8.8.8.0"),
    ("sink: {kind: dataset, path: out/rows.parquet}", "sink: {kind: sql, url: 'postgresql://u:p@a.example.com/d', table: t}", "CSM-C049", "'postgresql"),
    ("sink: {kind: dataset, path: out/rows.parquet}", "sink: {kind: sql, url: 'sqlite:../x.db', table: t}", "CSM-C021", "'sqlite"),
    ("sink: {kind: dataset, path: out/rows.parquet}", "sink: {kind: sql, url: 'sqlite:.casemate/journal.db', table: t}", "CSM-C021", "'sqlite"),
    ("sink: {kind: dataset, path: out/rows.parquet}", "sink: {kind: http, url: 'https://a.example.com'}\n    atomic: batch", "CSM-C049", "batch"),
    ("sink: {kind: dataset, path: out/rows.parquet}", MLFLOW + "m}", "CSM-C049", "rows.json"),
    ("sink: {kind: dataset, path: out/rows.parquet}", MLFLOW + "'m n'}", "CSM-C049", "'m n'"),
    ("sink: {kind: dataset, path: out/rows.parquet}", MLFLOW + "m, alias: a/b}", "CSM-C049", "a/b"),
    ("sink: {kind: dataset, path: out/rows.parquet}", MLFLOW.replace("a:/x", "a:/../x") + "m}", "CSM-C049", "'a:/../x"),
    ("sink: {kind: dataset, path: out/rows.parquet}", MLFLOW.replace("a:/x", "/x") + "m}", "CSM-C049", "'/x"),
    ("sink: {kind: dataset, path: out/rows.parquet}", "sink: {kind: mlflow, url: 'https://a.example.com', registered_model: m}", "CSM-C049", "{kind: mlflow"),
    ("sink: {kind: dataset, path: out/rows.parquet}", "sink: {kind: sql, url: 'sqlite:x.db', table: 't; drop'}", "CSM-C049", "'t; drop"),
    ("sink: {kind: dataset, path: out/rows.parquet}", "sink: {kind: dataset, path: out/rows.parquet, partition: day}", "CSM-C049", "day"),
    ("sink: {kind: dataset, path: out/rows.parquet}", "sink: {kind: file, path: a.md, mode: x}", "CSM-C049", "x}"),
    ("    quota: {per_run: 10}", "    quota: {per_run: 10}\n    approval: {over: 10}", "CSM-C047", "{over"),
    ("    quota: {per_run: 10}", "    quota: {per_run: 10}\n    approval: sometimes", "CSM-C007", "sometimes"),
    ("    quota: {per_run: 10}", "    quota: {per_run: 10}\n    contamination: [absent.jsonl]", "CSM-C022", "absent.jsonl"),
    ("    quota: {per_run: 10}", "    quota: {per_run: 10}\n    contamination: [brief.jsonl]", "CSM-C065", "brief.jsonl"),
    ("    quota: {per_run: 10}", "    quota: {per_run: 10}\n    contamination: [torn.jsonl]", "CSM-C065", "torn.jsonl"),
    ("    quota: {per_run: 10}", "    quota: {per_run: 10}\n    contamination: [seeds.jsonl]", "CSM-C065", "seeds.jsonl]"),
    ("    quota: {per_run: 10}", "    quota: {per_run: 10}\n    contamination: [copied.jsonl]", "CSM-C065", "copied.jsonl]"),
    ("    quota: {per_run: 10}", "    quota: {per_run: 10}\n    approvers: {need: 3, of: [anna, ben]}", "CSM-C047", "3, of"),
    ("    quota: {per_run: 10}", "    quota: {per_run: 10}\n    approvers: {need: 0, of: [anna]}", "CSM-C007", "0, of"),
    ("    quota: {per_run: 10}", "    quota: {per_run: 10}\n    approvers: {need: 1, of: [anna, twin]}", "CSM-C047", "twin"),
    ("    quota: {per_run: 10}", "    quota: {per_run: 10}\n    approvers: {need: 1, of: [anna, nobody]}", "CSM-C022", "nobody"),
    ("    quota: {per_run: 10}", "    quota: {per_run: 10}\n    approvers: {need: 1, of: [forged]}", "CSM-C047", "forged"),
    ("    quota: {per_run: 10}", "    quota: {per_run: 10}\n    scan: [viruses]", "CSM-C007", "viruses"),
    ("score: {min: 0, max: 1}", "score: {sigma: 5, history: absent}", "CSM-C029", "absent"),
    ("schema: rows.json", "schema: backtrack.json", "CSM-C045", "backtrack.json"),
    ("schema: rows.json", "schema: bomb.json", "CSM-C046", "bomb.json"),
    ("schema: rows.json", "schema: never.json", "CSM-C050", "never.json"),
    ("path: seeds.jsonl", "path: prompt.md", "CSM-C034", "prompt.md"),
    ("    outputs: [rows]", "    outputs: [rows]\n  - {name: idle, image: a, run: [b]}", "CSM-C042", "idle"),
    ("name: example", "suppress: [{rule: CSM-C042, at: /stages/0/name, reason: it is over, until: 2020-01-01}]\nname: example", "CSM-C044", "2020-01-01"),
    ("name: example", "suppress: [{rule: CSM-C042, at: /stages/0/name, reason: no such thing, until: 2099-01-01}]\nname: example", "CSM-C044", "{rule"),
    ("name: example", "suppress: [{rule: CSM-C042, at: /stages/0, until: 2099-01-01}]\nname: example", "CSM-C006", "{rule"),
    ("    image: casemate/agent-python\n    run: [python, /inputs/agent.py]\n    needs", "    image: company/agent:1\n    run: [a]\n    needs", "CSM-C025", "company/agent:1"),
    ("path: out/rows.parquet", "path: approvers/rows.jsonl", "CSM-C021", "approvers/rows"),
    ("name: example", "imports: [{path: absent.yaml, digest: 'sha256:" + "0" * 64 + "'}]\nname: example", "CSM-C036", "{path"),
    ("name: example", "imports: [{path: absent.yaml}]\nname: example", "CSM-C006", "{path"),
    ("    needs: [generate]", "    env: {MINE: openai_key}\n    needs: [generate]", "CSM-C008", "openai_key}\n    needs"),
    ("    needs: [generate]", "    env: {MINE: $CASEMATE_TEST_KEY}\n    needs: [generate]", "CSM-C008", "$CASEMATE"),
    ("    outputs: [rows]\noutputs:\n  rows:\n    sink: {kind: dataset, path: out/rows.parquet}", "    outputs: [rows]\n    tools: {repo: [push]}\ntools: {repo: {image: a}}\noutputs:\n  rows:\n    sink: {kind: mcp, server: repo, tool: push}", "CSM-C039", "push]"),
    ("bounds: {score:", "bounds: {scroe:", "CSM-C029", "scroe"),
    ("    schema: rows.json\n    bounds: {score: {min: 0, max: 1}}", "    schema: kinds.json\n    bounds: {tags: {min: 0}}", "CSM-C029", "tags: {min"),
    ("    schema: rows.json\n    bounds: {score: {min: 0, max: 1}}", "    schema: kinds.json\n    bounds: {kind: {min: 0}}", "CSM-C029", "{min: 0}}"),
    ("{min: 0, max: 1}", "{min: 2, max: 1}", "CSM-C007", "{min: 2"),
    ("unique: [text]", "unique: [txet]", "CSM-C029", "txet"),
]  # fmt: skip


def prepare(folder: Path) -> None:
    """Files that the cases name."""
    (folder / "folder").mkdir()
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "seeds.jsonl").write_text("{}")
    (folder / "link.jsonl").symlink_to("seeds.jsonl")
    (folder / "linked").symlink_to("elsewhere")
    closed = {"type": "object", "additionalProperties": False, "properties": {"text": {"type": "string"}}}
    (folder / "junk.json").write_text("{")
    (folder / "doubled.json").write_text('{"type": "object", "type": "object"}')
    (folder / "open.json").write_text(json.dumps({**closed, "additionalProperties": True}))
    (folder / "list.json").write_text('{"type": "array"}')
    (folder / "wrong.json").write_text(json.dumps({**closed, "required": "text"}))
    (folder / "prompt.md").write_text("Read this.\u200bAnd that.")
    (folder / "backtrack.json").write_text(json.dumps({**closed, "properties": {"text": {"pattern": "(?=a)b"}}}))
    bomb: dict[str, object] = {"type": "string"}
    for _ in range(30):
        bomb = {"anyOf": [bomb]}
    (folder / "bomb.json").write_text(json.dumps({**closed, "properties": {"text": bomb}}))
    never = {"text": {"type": "string", "minLength": 5, "maxLength": 4}}
    (folder / "never.json").write_text(json.dumps({**closed, "properties": never}))
    kinds = {"kind": {"type": "string", "enum": ["a", "b"]}, "tags": {"type": "array"}, "text": {"type": "string"}}
    (folder / "kinds.json").write_text(json.dumps({**closed, "properties": kinds}))
    (folder / "copied.jsonl").write_bytes((folder / "seeds.jsonl").read_bytes())
    (folder / "brief.jsonl").write_text('{"question": "What is 2+2?"}\n')
    (folder / "torn.jsonl").write_text('{"question": "What is 2+2?"\n')
    (folder / "approvers").mkdir()
    key = Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for name, pem in (("anna", key), ("twin", key), ("forged", b"no key")):
        (folder / "approvers" / f"{name}.pub").write_bytes(pem)
    remote = {"text": {"$ref": "https://example.com/schema.json"}}
    (folder / "remote.json").write_text(json.dumps({**closed, "properties": remote}))


def test_the_workflow_that_the_cases_break_has_no_findings(project: Path) -> None:
    assert [finding.render() for finding in open_project(project).findings] == []


@pytest.mark.parametrize(("old", "new", "code", "place"), CASES)
def test_a_wrong_workflow_is_refused_where_it_is_wrong(
    project: Path, old: str, new: str, code: str, place: str
) -> None:
    assert WORKFLOW.count(old) >= 1, "the case does not apply any more"
    text = WORKFLOW.replace(old, new, 1)
    prepare(project.parent)
    project.write_text(text)
    findings = open_project(project).findings
    start = text.index(new) if new else 0
    at = text.index(place, start if place in text[start:] else 0)
    line, column = text.count("\n", 0, at) + 1, at - (text.rfind("\n", 0, at) + 1) + 1
    found = {(f.code, f.place.line, f.place.column) for f in findings}
    assert (code, line, column) in found, [finding.render() for finding in findings]


def test_all_findings_are_reported_at_once_in_the_order_of_the_file(project: Path) -> None:
    text = WORKFLOW.replace("gpt-4o-mini", "gpt-9").replace("needs: [generate]", "needs: [absent]")
    project.write_text(text.replace("host: data.example.com", "host: '*'").replace("unique: [text]", "unique: [x]"))
    findings = [f for f in open_project(project).findings if f.severity is Severity.ERROR]
    assert [f.code for f in findings] == ["CSM-C011", "CSM-C019", "CSM-C014", "CSM-C029"]
    assert findings[0].hint is not None


def test_a_typo_gets_a_suggestion(project: Path) -> None:
    project.write_text(WORKFLOW.replace("needs: [generate]", "needs: [genarate]"))
    (finding,) = [f for f in open_project(project).findings if f.severity is Severity.ERROR]
    assert finding.hint == 'did you mean "generate"?'


@pytest.mark.parametrize("text", [b"", b"\x00", b"\xff\xfe", b"[]", b"1", b"null", b"- a", b"{" * 5000, b"[" * 5000,
                                  b"a: " * 1000, b"\xef\xbb\xbfcasemate: 1", b"x" * (2 << 20), b"%YAML 9.9\n---\na: 1",
                                  b"a:\n\t- b", b"'", b'"\\x', b"&a [*a]", b"!!binary x", b"? ? ? a"])  # fmt: skip
def test_any_bytes_end_in_findings(project: Path, text: bytes) -> None:
    project.write_bytes(text)
    assert open_project(project).findings


@settings(max_examples=200)
@given(data=st.data())
def test_a_mutated_workflow_never_crashes(data: st.DataObject) -> None:
    text = bytearray(WORKFLOW.encode())
    for _ in range(data.draw(st.integers(1, 6))):
        position = data.draw(st.integers(0, len(text) - 1))
        piece = data.draw(
            st.sampled_from([b"", b":", b"{", b"[", b"\n", b"- ", b"&a", b"*a", b"'", b'"', b"\xff", b"\t", b"0"])
        )
        text[position : position + data.draw(st.integers(0, 8))] = piece
    with contextlib.suppress(FindingsError):
        read(parse(bytes(text), "w.yaml"))


def test_what_an_inspected_rule_may_say(project: Path) -> None:
    rule = (
        "{host: a.example.com, inspect: true, methods: [GET, POST], paths: [/v1/items, /],"
        " credential: {header: Authorization, secret: hub, scheme: Bearer}, quota: {requests: 10, bytes: 1MiB}}"
    )
    text = WORKFLOW.replace("{host: data.example.com}", rule)
    text = text.replace("secrets:\n", "secrets:\n  hub: {from: env, key: CASEMATE_TEST_KEY}\n", 1)
    project.write_text(text)
    assert [finding.render() for finding in open_project(project).findings] == []
