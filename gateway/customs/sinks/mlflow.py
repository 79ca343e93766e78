"""MLflow: each row becomes a version of a registered model, by the REST API of the registry.

The registry gives numbers by itself and knows no idempotency, but it can be searched by tags. So a version carries the
key of its row, and the last one, in the end, a mark that all of the batch is there. What is sent twice, as by somebody
whose last request was still on its way, is found by its key, and the later version is deleted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from gateway.customs.sinks.web import client
from policies.canonical import canonical, digest, strict_loads
from policies.errors import CasemateError
from policies.events import clean
from policies.plan import Output
from policies.registered import OWN
from policies.sinks import At, Batch, Moment, kept

KEY, BATCH, WHOLE, BEFORE = "casemate.key", "casemate.batch", "casemate.whole", "casemate.alias_before"
_API = "/api/2.0/mlflow/"
_PAGE = 200
_MAX_ANSWER = 32 << 20


class MlflowSink:
    """One registered model."""

    tells, repeats = True, True

    def __init__(self, output: Output, secret: str | None, trust: list[str], root: Path) -> None:
        self._output, self._model, self._alias = output, output.target["registered_model"], output.target.get("alias")
        self._url = output.target["url"].rstrip("/") + _API
        self._client = partial(client, output, secret, trust, root)

    def find(self, batch: Batch) -> str | None:
        """Return the receipt of a batch whose last version says that it is whole."""
        with _Registry(self._client(), self._url) as registry:
            found = self._versions(registry, batch)
            whole = any(_tags(version).get(WHOLE) == batch.key for version in found)
            return self._receipt(found) if whole else None

    def apply(self, batch: Batch, at: At) -> str:
        """Make the versions that are not there yet, move the alias to the last, and mark it; or leave none of them."""
        with _Registry(self._client(), self._url) as registry:
            try:
                return self._applied(registry, batch, at)
            except CasemateError as error:
                if error.code == "CSM-W010":
                    self._take_back(registry, self._versions(registry, batch))
                raise

    def _applied(self, registry: _Registry, batch: Batch, at: At) -> str:
        if registry.aliases(self._model) is None:
            registry.post("registered-models/create", {"name": self._model})
        there = {_tags(version)[KEY] for version in self._versions(registry, batch)}
        for number, (key, record) in enumerate(_rows(batch)):
            if key not in there:
                registry.post("model-versions/create", self._version(batch, key, record))
            if number == 0:
                at(Moment.SENT)
        found = self._once(registry, batch)
        if len(found) != batch.count:
            raise CasemateError("CSM-W020", f"{len(found)} of {batch.count} versions are there")
        last = found[-1]
        if self._alias is not None:
            self._move(registry, last)
        registry.post("model-versions/set-tag", self._tag(last, WHOLE, batch.key))
        return self._receipt(found)

    def undo(self, batch: Batch, _receipt: str) -> None:
        """Put the alias back and delete the versions; refuse when somebody has given one of them another name."""
        with _Registry(self._client(), self._url) as registry:
            found = self._versions(registry, batch)
            aliases = registry.aliases(self._model) or {}
            numbers = {str(version["version"]) for version in found}
            if named := sorted(name for name, at in aliases.items() if at in numbers and name != self._alias):
                raise kept(f"somebody has given a version the alias {', '.join(named)}")
            if self._alias is not None and aliases.get(self._alias) in numbers:
                before = next((v for version in found if (v := _tags(version).get(BEFORE)) is not None), "")
                if before:
                    registry.post("registered-models/alias", self._named(before))
                else:
                    registry.delete("registered-models/alias", {"name": self._model, "alias": self._alias})
            self._take_back(registry, found)

    def _take_back(self, registry: _Registry, versions: list[dict[str, Any]]) -> None:
        for version in reversed(versions):
            registry.delete("model-versions/delete", {"name": self._model, "version": version["version"]})

    def _move(self, registry: _Registry, last: dict[str, Any]) -> None:
        """Give the alias to a version, which keeps in mind who had it before."""
        now = (registry.aliases(self._model) or {}).get(str(self._alias), "")
        if now == last["version"]:
            return
        registry.post("model-versions/set-tag", self._tag(last, BEFORE, now))
        registry.post("registered-models/alias", self._named(str(last["version"])))

    def _once(self, registry: _Registry, batch: Batch) -> list[dict[str, Any]]:
        """Return the versions of a batch, in order, after deleting whatever is there twice."""
        found, first = self._versions(registry, batch), dict[str, dict[str, Any]]()
        self._take_back(registry, [v for v in found if first.setdefault(_tags(v)[KEY], v) is not v])
        return list(first.values())

    def _versions(self, registry: _Registry, batch: Batch) -> list[dict[str, Any]]:
        found = registry.search(f"name='{self._model}' and tags.`{BATCH}`='{batch.key}'")
        return sorted(found, key=lambda version: int(version["version"]))

    def _version(self, batch: Batch, key: str, record: dict[str, Any]) -> dict[str, Any]:
        tags = {name: value for name, value in record.items() if name not in OWN} | {BATCH: batch.key, KEY: key}
        return {
            "name": self._model,
            **{name: record[name] for name in OWN if record.get(name) is not None},
            "tags": [{"key": name, "value": _text(value)} for name, value in sorted(tags.items())],
        }

    def _tag(self, version: dict[str, Any], key: str, value: str) -> dict[str, str]:
        return {"name": self._model, "version": str(version["version"]), "key": key, "value": value}

    def _named(self, version: str) -> dict[str, str]:
        return {"name": self._model, "alias": str(self._alias), "version": version}

    def _receipt(self, found: list[dict[str, Any]]) -> str:
        numbers = [str(version["version"]) for version in found]
        return canonical({"model": self._model, "versions": numbers}).decode()


class _Registry:
    """The REST API. What it refuses is CSM-W010; where its answer is lost, or it fails, it can be asked: CSM-W020."""

    def __init__(self, opened: httpx.Client, url: str) -> None:
        self._client, self._url = opened, url

    def __enter__(self) -> _Registry:
        self._client.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def search(self, text: str) -> list[dict[str, Any]]:
        """Return every version that a filter finds."""
        found: list[dict[str, Any]] = []
        page = ""
        while True:
            query = {"filter": text, "max_results": _PAGE, "page_token": page}
            answer = self._ask("GET", "model-versions/search", params={k: v for k, v in query.items() if v}) or {}
            found += answer.get("model_versions", [])
            page = answer.get("next_page_token") or ""
            if not page:
                return found

    def aliases(self, model: str) -> dict[str, str] | None:
        """Return the version of each alias, or None where there is no such model."""
        answer = self._ask("GET", "registered-models/get", params={"name": model})
        if answer is None:
            return None
        return {one["alias"]: str(one["version"]) for one in answer["registered_model"].get("aliases", [])}

    def post(self, path: str, body: dict[str, Any]) -> None:
        """Make something; that it is there already is as good."""
        self._ask("POST", path, json=body)

    def delete(self, path: str, body: dict[str, Any]) -> None:
        """Delete something; that it is gone is as good."""
        self._ask("DELETE", path, json=body)

    def _ask(self, method: str, path: str, **how: Any) -> dict[str, Any] | None:
        """Return the answer, or None when what was asked for is not there."""
        try:
            with self._client.stream(method, self._url + path, **how) as answer:
                body = b""
                for part in answer.iter_raw():
                    body += part
                    if len(body) > _MAX_ANSWER:
                        raise CasemateError("CSM-W020", "its answer is too large")
        except httpx.HTTPError as error:
            raise CasemateError("CSM-W020", f"it does not answer: {type(error).__name__}") from error
        said = _loads(body)
        if (code := said.get("error_code")) == "RESOURCE_DOES_NOT_EXIST":
            return None
        if code == "RESOURCE_ALREADY_EXISTS":
            return said
        if answer.status_code >= 500:
            raise CasemateError("CSM-W020", f"it answered with status {answer.status_code}")
        if answer.status_code != 200:
            raise CasemateError("CSM-W010", f"{path}: status {answer.status_code} {clean(str(code), 100)}")
        return said


def _rows(batch: Batch) -> Iterator[tuple[str, dict[str, Any]]]:
    with batch.rows.open("rb") as rows:
        for number, row in enumerate(rows):
            record: Any = strict_loads(row.removesuffix(b"\n"))
            yield digest(f"{batch.key}/{number}".encode()).removeprefix("sha256:"), record


def _tags(version: dict[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in version.get("tags", [])}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else canonical(value).decode()


def _loads(body: bytes) -> dict[str, Any]:
    try:
        said = json.loads(body)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
