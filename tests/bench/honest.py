"""`python -m tests.bench.honest [ROWS]`: how often customs objects to honest texts.

The texts are Debian's manual pages in six languages (fetched by apt-get) and the source code of Python's library, in
rows of a few hundred characters. Every check is on; what is counted are rows that would not be written, by check and
reason.
"""

from __future__ import annotations

import gzip
import io
import re
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import orjson

from gateway.customs.examine import examiner
from gateway.customs.intake import CHUNK_ROWS
from gateway.customs.scan.values import needles
from tests.bench.customs import SECRETS
from tests.gateway.kit import make_output

PACKAGES = {
    "en": "manpages",
    "de": "manpages-de",
    "fr": "manpages-fr",
    "ru": "manpages-ru",
    "zh": "manpages-zh",
    "ja": "manpages-ja",
}
SCHEMA = {
    "type": "object",
    "properties": {"language": {"type": "string"}, "text": {"type": "string"}},
    "additionalProperties": False,
}
_REQUEST = re.compile(r"^[.'].*$", re.MULTILINE)
_ESCAPE = re.compile(r"\\f[A-Z]|\\f\([A-Z]{2}|\\[&/,|^%]|\\s[-+]?\d+")


def rows(count: int) -> Iterator[dict[str, str]]:
    """Yield honest rows, the same number of each language and of code."""
    share = count // (len(PACKAGES) + 1)
    for language, package in PACKAGES.items():
        found = list(islice(_pages(package), share))
        print(f"{language}: {len(found):,} rows of {package}")
        yield from ({"language": language, "text": text} for text in found)
    yield from ({"language": "code", "text": text} for text in islice(_code(), share))


def _pages(package: str) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        subprocess.run(["apt-get", "-qq", "download", package], cwd=folder, check=True, stderr=subprocess.DEVNULL)
        (deb,) = Path(folder).glob("*.deb")
        data = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(deb)], check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            content = archive.extractfile(member) if member.name.endswith(".gz") and member.isreg() else None
            if content is not None:
                page = gzip.decompress(content.read()).decode("utf-8", "replace")
                text = _ESCAPE.sub("", _REQUEST.sub("\n", page)).replace("\\-", "-").replace("\\(aq", "'")
                yield from _cut(text.replace("\\e", "\\"), "\n\n")


def _code() -> Iterator[str]:
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        yield from _cut(path.read_text("utf-8", "replace"), "\n")


def _cut(text: str, separator: str) -> Iterator[str]:
    piece = ""
    for part in text.split(separator):
        piece += part + separator
        if len(piece) >= 300:
            yield piece.strip()[:2000]
            piece = ""


def main(count: int) -> None:
    """Count, and print."""
    scans = ["links", "pii", "secrets", "unicode"]
    output = make_output(schema=SCHEMA, bounds={}, unique=[], scan=scans, hosts=["*.org", "*.com", "*.net"])
    work = examiner(output, needles(SECRETS), b"k")
    everything = [row for row in rows(count) if row["text"]]
    lines = [orjson.dumps(row) for row in everything]
    checks: Counter[str] = Counter()
    reasons: Counter[tuple[str, str]] = Counter()
    samples: dict[tuple[str, str], str] = {}
    for first in range(0, len(lines), CHUNK_ROWS):
        for number, found in work.examine(b"\n".join(lines[first : first + CHUNK_ROWS])).reasons.items():
            checks.update({reason.check for reason in found})
            for reason in found:
                key = (reason.check, re.sub(r", \d+ characters.*", "", reason.excerpt))
                reasons[key] += 1
                samples.setdefault(key, everything[first + number]["text"][:120])
    print(f"{len(lines):,} rows")
    for check, number in checks.most_common():
        print(f"{check:10} {number:6,}  {number / len(lines):.4%}")
    for (check, reason), number in reasons.most_common(40):
        print(f"  {check:8} {reason[:60]:60} {number:5}  {samples[check, reason]!r}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
