"""What was prepared is used, and is what would have been made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import hyperscan
import pytest

from gateway.customs import prepare, ready
from gateway.customs.checks.contamination import letter_of
from gateway.customs.sheet.sheet import marks
from gateway.customs.sieve import planes
from gateway.customs.sieve.known import Known
from gateway.customs.sieve.patterns import Patterns
from gateway.customs.sieve.sieve import Sieve
from policies.secret_rules import secret_rules

TEXT = planes.folded("key AKIAQ3EGRZ6TNSO7LXPV" + planes.ROW + "call +49 30 901820 or <b>" + planes.ROW)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("customs") / "prepared"
    prepare.main(folder)
    return folder


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Which patterns had to be compiled."""
    names: list[str] = []
    compiled = Patterns.kept

    def kept(patterns: Patterns) -> bytes:
        names.append(patterns.name)
        return compiled(patterns)

    monkeypatch.setattr(Patterns, "kept", kept)
    forget()
    yield names
    forget()


def forget() -> None:
    """Have tables made or read again."""
    for table in (planes.ascii_of, letter_of, marks):
        table.cache_clear()


@pytest.mark.parametrize("scans", [(), ("unicode",), prepare.SCANS])
def test_nothing_that_was_prepared_is_made_again(
    scans: Sequence[str], prepared: Path, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ready, "FOLDER", prepared / "nowhere")
    tables = planes.ascii_of().tobytes(), letter_of().tobytes(), marks().tobytes()
    found = [one.rows(TEXT) for one in Sieve(scans, secret_rules(), Known(()), ()).patterns]
    compiled = len(made)
    assert compiled > 6
    assert found[0]["tokens"] == {0}
    forget()
    monkeypatch.setattr(ready, "FOLDER", prepared)
    assert [one.rows(TEXT) for one in Sieve(scans, secret_rules(), Known(()), ()).patterns] == found
    assert len(made) == compiled
    assert tables == (planes.ascii_of().tobytes(), letter_of().tobytes(), marks().tobytes())
    assert (prepared / planes.ASCII).read_bytes() == tables[0]


def test_what_is_for_another_processor_is_made_here(
    tmp_path: Path, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    patterns = Patterns({"one": ["AKIA"]}, rare=True)
    (tmp_path / patterns.name).write_bytes(b"of another processor" * 20)
    with pytest.raises(hyperscan.error):
        hyperscan.loadb((tmp_path / patterns.name).read_bytes(), hyperscan.HS_MODE_BLOCK)
    monkeypatch.setattr(ready, "FOLDER", tmp_path)
    assert patterns.rows(TEXT) == {"one": {0}}
    assert made == [patterns.name]


@pytest.mark.skipif(not Path("/opt/app/gateway").is_dir(), reason="asks about an image")
def test_the_image_has_it_all() -> None:
    assert len(list(Path("/opt/app/gateway/customs/prepared").iterdir())) == 3 + 8 + 3 + 7
