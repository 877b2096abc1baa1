import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lurm.tables import (
    BEHAVIORS,
    BOI,
    TIMESTAMP,
    check_columns,
    check_same_ids,
    ids_of_lines,
    is_id,
    user_vectors_schema,
)


@pytest.mark.parametrize(
    "kind", [pa.int32(), pa.int64(), pa.uint64(), pa.string(), pa.large_string()]
)
def test_integers_and_text_can_be_ids_and_more_columns_are_welcome(kind):
    assert is_id(kind)
    columns = {"user_id": kind, "item_id": kind, "timestamp": TIMESTAMP, "type": pa.string()}
    check_columns(pa.schema(columns), BEHAVIORS, "file")


@pytest.mark.parametrize("kind", [pa.float64(), pa.bool_(), pa.binary(), pa.null(), TIMESTAMP])
def test_nothing_else_can_be_an_id(kind):
    assert not is_id(kind)


def test_all_faults_of_a_table_are_told_at_once_with_what_was_found():
    schema = pa.schema({"user_id": pa.float64(), "timestamp": pa.string(), "extra": pa.int8()})
    with pytest.raises(ValueError, match=r"^landing/2017-05") as error:
        check_columns(schema, BEHAVIORS, "landing/2017-05.parquet")
    for told in (
        "column 'user_id' should be integer or string, is double",
        "column 'item_id' is missing",
        "column 'timestamp' should be timestamp[us, tz=UTC], is string",
        "found columns user_id, timestamp, extra",
        "See docs/your-own-logs.md",
    ):
        assert told in str(error.value)


def test_a_table_without_columns_is_refused():
    with pytest.raises(ValueError, match="found columns none"):
        check_columns(pa.schema([]), BOI, "file")


def test_a_column_that_is_there_twice_is_refused():
    twice = pa.schema([("item_id", pa.int64()), ("name", pa.string()), ("item_id", pa.int64())])
    with pytest.raises(ValueError, match="column 'item_id' is there more than once"):
        check_columns(twice, {"item_id": pa.int64()}, "file")


def test_ids_are_integers_everywhere_or_text_everywhere():
    number, small, text, long_text = (
        pa.schema({"item_id": kind})
        for kind in (pa.int64(), pa.int32(), pa.string(), pa.large_string())
    )
    check_same_ids(small, number, "item_id", "file")
    check_same_ids(long_text, text, "item_id", "file")
    with pytest.raises(ValueError, match=r"expected item_id to hold integers .*, found strings"):
        check_same_ids(text, number, "item_id", "file")


def test_published_vectors_have_a_fixed_width():
    schema = user_vectors_schema(6, pa.string())
    assert schema.field("vector").type == pa.list_(pa.float32(), 6)
    assert schema.field("user_id").type == pa.string()


def test_beside_a_published_vector_stands_what_it_rests_on():
    beside = [name for name in user_vectors_schema(6, pa.int64()).names if name != "vector"]
    rests_on = ["n_behaviors", "confidence", "first_month", "last_month"]
    assert beside == ["user_id", *rests_on, "model_version", "space_version"]


ids = st.text(st.characters(blacklist_characters="\r\n", blacklist_categories=("Cs",)), min_size=1)


@given(st.lists(ids), st.sampled_from(["\n", "\r\n"]))
def test_ids_of_lines_gives_back_the_ids_that_were_written(written, end):
    assert ids_of_lines("".join(f"{one}{end}" for one in written)) == written
