from pathlib import Path

import pyarrow as pa
import pytest

from lurm.storage import write_parquet
from stages.pin_training import main


def test_the_copy_stays_when_the_original_is_corrected(tmp_path):
    source, pinned = tmp_path / "2017-05.parquet", tmp_path / "pinned" / "2017-05.parquet"
    write_parquet(pa.table({"user_id": [1]}), source)
    first = source.read_bytes()
    main(["--source", str(source), "--pinned", str(pinned)])
    write_parquet(pa.table({"user_id": [2]}), source)
    assert pinned.read_bytes() == first


@pytest.mark.parametrize("content", [None, b"PAR1 cut"])
def test_a_missing_or_damaged_original_leaves_the_copy_as_it_was(tmp_path, content):
    source, pinned = tmp_path / "source.parquet", tmp_path / "pinned.parquet"
    pinned.write_bytes(b"before")
    if content:
        source.write_bytes(content)
    with pytest.raises((ValueError, OSError), match="source"):
        main(["--source", str(source), "--pinned", str(pinned)])
    assert pinned.read_bytes() == b"before"
    assert [path.name for path in Path(tmp_path).iterdir() if path.suffix == ".tmp"] == []
