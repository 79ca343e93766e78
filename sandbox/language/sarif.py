"""Findings as SARIF 2.1.0, so that a CI host shows them on their lines."""

from __future__ import annotations

from collections.abc import Sequence

from policies.canonical import pointer
from policies.errors import CODES
from sandbox.language.findings import Finding, Severity

_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning"}


def sarif(findings: Sequence[Finding], version: str) -> dict[str, object]:
    """Return a SARIF log with one run. Places count from 1, columns in Unicode code points."""
    codes = sorted({finding.code for finding in findings})
    driver = {
        "name": "casemate",
        "version": version,
        "rules": [{"id": code, "shortDescription": {"text": CODES[code]}} for code in codes],
    }
    results = [
        {
            "ruleId": finding.code,
            "ruleIndex": codes.index(finding.code),
            "level": _LEVELS[finding.severity],
            "message": {"text": finding.message + (f" ({finding.hint})" if finding.hint else "")},
            "locations": [
                {
                    "physicalLocation": {
                        "artifactLocation": {"uri": finding.place.file},
                        "region": {"startLine": finding.place.line, "startColumn": finding.place.column},
                    },
                    "logicalLocations": [{"fullyQualifiedName": pointer(finding.path)}],
                }
            ],
        }
        for finding in findings
    ]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return {"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0", "runs": [run]}
