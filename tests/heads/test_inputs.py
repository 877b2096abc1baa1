import numpy as np
import pyarrow as pa
import pytest

from lurm.heads.inputs import frequent_interests, interest_counts
from lurm.storage import write_parquet

ROWS = {
    "2017-01": [(1, 4, 2.0), (1, 7, 1.0), (3, 7, 5.0)],
    "2017-02": [(1, 4, 3.0), (2, 0, 1.5), (9, 8, 0.25)],
}


@pytest.fixture(params=[pa.int64(), pa.string()])
def bags(request, tmp_path):
    paths = []
    for month, rows in ROWS.items():
        users, interests, counts = zip(*rows, strict=True)
        user_ids = pa.array(users).cast(request.param)
        columns = [user_ids, pa.array(interests, pa.int32()), pa.array(counts, pa.float32())]
        paths.append(tmp_path / f"{month}.parquet")
        write_parquet(pa.table(columns, names=["user_id", "interest", "count"]), paths[-1])
    return request.param, paths


def test_frequent_interests_keeps_those_of_most_behaviors(bags):
    assert frequent_interests(bags[1]).tolist() == [0, 4, 7, 8]
    assert frequent_interests(bags[1], 3).tolist() == [0, 4, 7]
    assert frequent_interests(bags[1], 1).tolist() == [7]


def test_interest_counts_adds_up_the_months(bags):
    kind, paths = bags
    found = interest_counts(paths, pa.array([3, 1, 5]).cast(kind), np.array([4, 7]))
    np.testing.assert_allclose(found, np.log1p([[0, 5], [5, 1], [0, 0]]), rtol=1e-6)


def test_interest_counts_of_no_interests_is_empty(bags):
    kind, paths = bags
    assert interest_counts(paths, pa.array([3]).cast(kind), np.zeros(0, np.int64)).shape == (1, 0)
