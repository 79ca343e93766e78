"""Misfits: where a document does not fit the workflow's schema, in words, as findings with line and column."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

from policies.events import clean
from sandbox.language.findings import Finding, Path, did_you_mean
from sandbox.language.source import Document

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

SCHEMA = FilePath(__file__).resolve().parents[2] / "policies" / "schemas" / "workflow.schema.json"


@cache
def schema() -> dict[str, Any]:
    """Return the workflow's schema."""
    loaded: dict[str, Any] = json.loads(SCHEMA.read_text())
    return loaded


def misfits(document: Document) -> Iterator[Finding]:
    """Yield a finding for every violation of the schema."""
    from jsonschema import Draft202012Validator

    for error in Draft202012Validator(schema()).iter_errors(document.data):
        yield from _explain(document, error)


def _explain(document: Document, error: ValidationError) -> Iterator[Finding]:
    path: Path = tuple(error.absolute_path)
    value, rule = error.instance, _rule(error)
    match error.validator:
        case "additionalProperties" if isinstance(value, dict):
            known = error.schema.get("properties", {}) if isinstance(error.schema, dict) else {}
            for key in value.keys() - known.keys():
                where = (*path, key)
                message = f'unknown field "{clean(key, 80)}"'
                yield Finding(
                    code="CSM-C005",
                    message=message,
                    place=document.key(where),
                    path=where,
                    hint=did_you_mean(key, known),
                )
        case "required" if isinstance(value, dict):
            for key in rule:
                # one error of the library stands for one missing key
                if key not in value and f"'{key}'" in error.message:
                    yield Finding(
                        code="CSM-C006", message=f'missing field "{key}"', place=document.place(path), path=path
                    )
        case "oneOf" if isinstance(value, dict):
            wanted = " or ".join(f'"{option["required"][0]}"' for option in rule)
            message = f"needs {wanted}, and not both"
            yield Finding(code="CSM-C006", message=message, place=document.place(path), path=path)
        case _ if error.parent is None and path and error.validator == "pattern" and _is_key(error):
            where = (*path, str(value))
            message = f'"{clean(str(value), 80)}" is not a valid name'
            yield Finding(code="CSM-C007", message=message, place=document.key(where), path=where, hint=_hint(error))
        case _:
            message = f"{_short(value)} {_wants(error)}"
            yield Finding(code="CSM-C007", message=message, place=document.place(path), path=path, hint=_hint(error))


def _rule(error: ValidationError) -> Any:
    return error.validator_value


def _is_key(error: ValidationError) -> bool:
    return "propertyNames" in error.absolute_schema_path


def _short(value: object) -> str:
    if isinstance(value, dict | list):
        return "this"
    return clean(json.dumps(value, ensure_ascii=False, default=str), 80)


def _wants(error: ValidationError) -> str:
    rule = _rule(error)
    match error.validator:
        case "type":
            return f"should be of type {rule}"
        case "enum":
            return f"should be one of {', '.join(map(str, rule))}"
        case "const":
            return f"should be {rule}"
        case "pattern":
            return "does not have the right form"
        case "minimum" | "exclusiveMinimum":
            return f"is too small (at least {rule})"
        case "maximum":
            return f"is too large (at most {rule})"
        case "uniqueItems":
            return "has an item twice"
        case other:
            return f"violates {other}: {clean(str(rule), 80)}"


_FORMS = {
    "#/$defs/duration": "a number and s, m or h, as in 90s or 20m",
    "#/$defs/per_minute": "a number and /min, as in 60/min",
    "#/$defs/size": "a number and KiB, MiB or GiB, as in 512MiB",
    "#/$defs/name": "lower-case letters, digits, - and _, at most 40, a letter first",
}


def _hint(error: ValidationError) -> str | None:
    if error.validator == "enum" and isinstance(error.instance, str):
        return did_you_mean(error.instance, [str(v) for v in _rule(error)])
    if error.validator == "pattern":
        for ref, hint in _FORMS.items():
            name = ref.rsplit("/", 1)[1]
            if schema()["$defs"][name].get("pattern") == error.validator_value:
                return hint
        return f"must match {error.validator_value}"
    return None
