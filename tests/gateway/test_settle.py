"""Equal keys are found in any number of parts."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.customs import settle

_numbers = st.sampled_from([-1, 0, 1, 2, 3, 2**62])


@pytest.mark.parametrize("part_rows", [2, 7, 1 << 18])
@given(keys=st.lists(st.tuples(_numbers, _numbers), min_size=1, max_size=60))
def test_a_row_is_found_whose_key_an_earlier_one_has(part_rows: int, keys: list[tuple[int, int]]) -> None:
    wanted = [n for n, key in enumerate(keys) if key != (0, 0) and key in keys[:n]]
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryFile() as file:
        patch.setattr(settle, "_PART_ROWS", part_rows)
        file.write(np.array(keys, dtype=np.int64).tobytes())
        assert settle._repeated(file, len(keys), Path(tempfile.gettempdir())).tolist() == wanted
