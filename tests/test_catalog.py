import pyarrow as pa

from lurm.catalog import item_texts


def test_texts_leave_nulls_out():
    catalog = pa.table({"item_id": [1, 2], "kind": ["TEA", None], "size": ["1 LB", None]})
    assert item_texts(catalog, ["kind", "size"]) == ["TEA, 1 LB", ""]
