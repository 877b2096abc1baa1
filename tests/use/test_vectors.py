import numpy as np
import pyarrow as pa
import pytest

from lurm.storage import read_parquet, write_parquet
from lurm.use.vectors import plain_table, read_vectors
from lurm.vectors import vector_matrix
from tests.use.worlds import grouped, vectors_table


@pytest.fixture(params=["numbers", "names"])
def month(request, tmp_path):
    """A month's file, its vectors and its users."""
    x, _ = grouped(30, 3)
    ids = (
        list(range(100, 130))
        if request.param == "numbers"
        else [f"użytkownik {k}" for k in range(30)]
    )
    write_parquet(vectors_table(x, ids), tmp_path / "vectors.parquet")
    return tmp_path / "vectors.parquet", x, ids


def test_users_come_in_the_order_asked_for_as_often_as_asked_for(month):
    path, x, ids = month
    asked = [ids[7], ids[0], ids[7]]
    found = read_vectors(path, asked)
    assert found.schema == read_parquet(path).schema
    assert found["user_id"].to_pylist() == asked
    np.testing.assert_array_equal(vector_matrix(found), x[[7, 0, 7]])
    assert found["n_behaviors"].to_pylist() == [8, 1, 8]
    assert read_vectors(path, ids).equals(read_parquet(path))


def test_a_user_with_no_vector_gets_the_mean_with_no_confidence_and_no_months(month):
    path, x, ids = month
    nobody = 7 if isinstance(ids[0], int) else "nobody"
    found = read_vectors(path, [ids[3], nobody])
    np.testing.assert_array_equal(vector_matrix(found)[0], x[3])
    np.testing.assert_allclose(vector_matrix(found)[1], x.mean(0), rtol=1e-5)
    row = found.to_pylist()[1]
    assert (row["user_id"], row["n_behaviors"], row["confidence"]) == (nobody, 0, 0)
    assert row["first_month"] is row["last_month"] is None
    assert row["model_version"] == row["space_version"] == "v1"
    assert found["confidence"][0].as_py() == 0.5


def test_nobody_asked_for_gives_no_rows(month):
    path, _, _ = month
    found = read_vectors(path, [])
    assert len(found) == 0
    assert found.schema == read_parquet(path).schema


def test_ids_of_another_type_and_files_of_two_spaces_are_refused(month):
    path, x, ids = month
    other = ["100"] if isinstance(ids[0], int) else [100]
    with pytest.raises(ValueError, match=r"vectors\.parquet: expected user ids of type .* got"):
        read_vectors(path, other)
    both = pa.concat_tables([vectors_table(x, ids), vectors_table(x, ids, version="v2")])
    write_parquet(both, path)
    with pytest.raises(ValueError, match="expected rows of one space, found 2"):
        read_vectors(path, ids)


def test_numbers_get_columns_that_sort_as_they_stand():
    x = np.arange(24, dtype=np.float32).reshape(2, 12)
    table = plain_table(vectors_table(x))
    numbers = [name for name in table.column_names if name[0] == "v"]
    assert numbers == sorted(numbers) == [f"v{k:02d}" for k in range(12)]
    assert table["v11"].to_pylist() == [11, 23]
