import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lurm.holdout import validation_users

SOME = [f"u{n}" for n in range(40)]


def test_a_fifth_of_the_users_is_set_aside():
    assert validation_users(pa.array(range(20_000))).mean() == pytest.approx(0.2, abs=0.01)


def test_the_side_of_a_user_is_written_in_stone():
    chosen = np.flatnonzero(validation_users(pa.array(SOME))).tolist()
    assert chosen == [2, 8, 11, 12, 18, 24, 28, 29, 31, 33]


def test_another_process_sets_the_same_users_aside():
    code = (
        "import pyarrow as pa; from lurm.holdout import validation_users; "
        "print(validation_users(pa.array([f'u{n}' for n in range(40)])).astype(int).tolist())"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert printed.strip() == str(validation_users(pa.array(SOME)).astype(int).tolist())


@given(st.lists(st.integers(0, 10**12), unique=True))
def test_a_user_stays_whoever_else_is_there_and_however_the_id_is_typed(ids):
    together = validation_users(pa.array(ids, pa.int64()))
    alone = [validation_users(pa.array([one]))[0] for one in ids]
    as_text = validation_users(pa.array([str(one) for one in ids], pa.string()))
    assert together.tolist() == alone == as_text.tolist()


def test_a_larger_share_holds_the_smaller():
    small, large = (validation_users(pa.array(range(1000)), share) for share in (0.1, 0.3))
    assert (large | ~small).all()
    assert validation_users(pa.array(range(9)), 1.0).all()
    assert not validation_users(pa.array(range(9)), 0.0).any()


@pytest.mark.parametrize(
    ("ids", "share", "message"),
    [([1], 1.5, "expected 0 to 1"), ([1, None], 0.2, "1 are null")],
)
def test_what_makes_no_sense_is_refused(ids, share, message):
    with pytest.raises(ValueError, match=message):
        validation_users(pa.array(ids), share)
