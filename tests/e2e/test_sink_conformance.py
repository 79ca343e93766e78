"""What every sink keeps to, each against the real thing: whoever applies may die anywhere, and rows are there once."""

from __future__ import annotations

import pytest

from policies.sinks import Moment
from tests.lab import Lab, mentions
from tests.sinks import IN_SINK, SECRET, WORLDS, World, copied, killed, killed_here, states

WANTED = ["one", "two"]


@pytest.mark.parametrize("kind", WORLDS)
def test_rows_are_there_once_whoever_dies_and_come_out_again(lab: Lab, kind: str) -> None:
    with WORLDS[kind](lab) as world:
        world.empty()
        result = lab.run(world.workflow(lab), "--dry-run")
        assert result.exit_code == 0, result.stderr
        assert world.there() == [], "a dry run writes nothing"
        for moment in IN_SINK:
            world.empty()
            dies_and_goes_on(lab, world, moment)
        world.empty()
        applied = lab.cli("apply", "latest")
        assert applied.returncode == 0, applied.stderr
        assert world.there() == WANTED
        undone = lab.cli("undo", "latest")
        assert (undone.returncode, world.there()) == ((0, []) if world.undoes else (4, WANTED)), undone.stderr
    texts = {str(path): path.read_bytes() for path in lab.folder.rglob("*") if path.is_file()}
    assert list(mentions(SECRET, texts)) == []


def dies_and_goes_on(lab: Lab, world: World, moment: Moment) -> None:
    """Kill whoever applies, from a fresh copy of what waits; then let it be applied, as a user would."""
    with copied(lab, moment.value) as home:
        (killed if world.outside else killed_here)(lab, home, moment)
        found = world.there()
        if moment is Moment.FINAL:
            assert found == WANTED, "the control: it had written"
        for _ in range(2):
            if world.tells:
                assert states(lab, home) == ["applied"]
                assert world.there() == WANTED
            else:
                assert states(lab, home, code=7) == ["unknown"]
                assert world.there() == found, "nothing is sent again by itself"
        if not world.tells:
            assert states(lab, home, "--done", "rows") == ["applied"]
            assert world.there() == found
