from pathlib import Path

import pyarrow as pa
import pytest

from lurm.storage import read_parquet, write_json, write_parquet
from lurm.tables import user_vectors_schema
from stages.explore import main
from tests import reference, small_world
from tests.reporting.test_explorer import make_release, scripts
from tests.small_world import MONTHS, N_USERS, TRAINING, user_name

FOLDERS = ("boi", "catalog", "item-interests", "training", "vectors", "models", "reports")
ARGS = [
    *(f"--{name}={name}" for name in FOLDERS),
    "--page=out/page.html",
    "--users=out/users.parquet",
]


@pytest.fixture
def release(tmp_path, monkeypatch):
    """A small world in which interest i of user u is met u + 1 times a month, i being u % 4."""
    monkeypatch.chdir(tmp_path)
    small_world.write_settings(explorer={"lives": 3, "items": 5})
    for month in TRAINING:
        small_world.write_behaviors(month)
    small_world.write_catalog(f"catalog/{MONTHS[-1]}.parquet")
    small_world.write_item_interests(f"item-interests/{MONTHS[-1]}.parquet")
    lives = {user: {m: {user % 4: user + 1.0} for m in range(4)} for user in range(N_USERS)}
    ids = pa.array([user_name(user) for user in range(N_USERS)])
    for month, table in reference.boi_tables(lives).items():
        named = table.set_column(0, "user_id", ids.take(table["user_id"]))
        write_parquet(named, f"boi/{MONTHS[month]}.parquet")
    schema = user_vectors_schema(2, pa.string())
    rows = [
        (user, [0.0, 1.0], n, 0.5, MONTHS[0], MONTHS[3], "v", "v")
        for n, user in enumerate(ids.to_pylist())
    ]
    columns = [pa.array(c, f.type) for c, f in zip(zip(*rows, strict=True), schema, strict=True)]
    write_parquet(pa.Table.from_arrays(columns, schema=schema), f"vectors/{MONTHS[-1]}.parquet")
    release = make_release(4)
    for name in ("interests", "interest_map", "anchor_map"):
        write_parquet(getattr(release, name), f"models/{name}.parquet")
    write_parquet(release.lineage, "models/interest_lineage.parquet")
    for month, told in release.drift.items():
        write_json(told, f"reports/drift/{month}.json")
    write_json(release.scores, "reports/scores.json")
    write_json({}, "reports/cluster_interests.json")
    return release


@pytest.mark.usefixtures("release")
def test_the_page_shows_lives_under_other_names_and_the_table_tells_whose():
    main(ARGS)
    page = Path("out/page.html").read_text("utf-8")
    users = read_parquet("out/users.parquet").to_pylist()
    assert [row["name"] for row in users] == ["user 1", "user 2", "user 3"]
    *lives, payload = scripts(page)
    for life, row in zip(lives, users, strict=True):
        number = int(row["user_id"].split()[1])
        assert life["rows"] == [number % 4]
        assert life["counts"] == [[number + 1] * 4]
        assert life["n_behaviors"] == number  # of the vectors' table
        assert row["user_id"] not in page
    assert payload["items"] == ["soap bar, care", "綠茶 чай, food"]
    assert "użytkownik" not in page


@pytest.mark.usefixtures("release")
def test_the_same_inputs_give_the_same_bytes_and_nobody_may_be_shown():
    main(ARGS)
    before = small_world.files("out")
    main(ARGS)
    assert small_world.files("out") == before
    small_world.write_settings(explorer={"lives": 0})
    main(ARGS)
    assert len(read_parquet("out/users.parquet")) == 0
    assert "A life" not in Path("out/page.html").read_text("utf-8")


@pytest.mark.usefixtures("release")
@pytest.mark.parametrize("name", ["boi/2017-02.parquet", "reports/drift/2017-02.json"])
def test_a_missing_month_is_named_and_nothing_is_written(name):
    Path(name).unlink()
    with pytest.raises(FileNotFoundError, match="missing 2017-02"):
        main(ARGS)
    assert not Path("out").exists()
