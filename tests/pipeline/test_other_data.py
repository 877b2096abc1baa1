"""Nothing is wired to the example: another shop, and a small one made up of all that is unusual."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from lurm.storage import read_json, read_parquet
from tests.pipeline.runs import N_SHOPPERS, ONCE, SHOP_MONTHS, SOUP, TEA

pytestmark = pytest.mark.slow


@pytest.fixture
def vectors(small_shop):
    """Every user of the small shop as of its last month."""
    return read_parquet(small_shop.root / "data/user_vectors/2024-01.parquet").to_pylist()


def test_another_shop_runs_through(ta_feng):
    assert ta_feng.repro() == []
    assert ta_feng.json("reports/scores.json")["model_version"].startswith("2001-01-r1-")
    assert (ta_feng.root / "reports/report.html").exists()


def test_a_month_without_items_keeps_the_catalog(small_shop):
    hashes = small_shop.hashes()
    assert hashes["data/catalog/2023-12.parquet"] == hashes["data/catalog/2023-11.parquet"]
    assert small_shop.settings()["months"]["2023-12"]["items"] == "data/landing/items.parquet"
    assert small_shop.json("reports/catalog/2024-01.json")["new"] == 10


def test_a_shop_without_a_users_file_has_category_tasks(small_shop):
    assert not (small_shop.root / "data/landing/users.parquet").exists()
    assert 0 <= small_shop.json("reports/heads/tea.json")["auc"] <= 1


def test_run_with_attributes_only_learns_from_the_last_month(attributes):
    assert attributes.settings()["training"]["through"] == SHOP_MONTHS[-1]
    taste = attributes.json("reports/heads/taste.json")
    assert taste["auc"] > 0.9
    assert {part["inputs"] for part in taste["head"]} <= {"vector", "counts"}
    found = read_parquet(attributes.root / f"data/predictions/{SHOP_MONTHS[-1]}.parquet")
    assert found.column_names == ["user_id", "model_version", "taste", "taste_probability"]


def test_run_skips_a_task_that_cannot_be_trained_and_reports_it(attributes):
    reason = attributes.json("reports/heads/guild.json")["skipped"]
    assert "a class of 1 users" in reason
    assert attributes.json("reports/scores.json")["skipped"] == [
        {"task": "guild", "skipped": reason}
    ]
    page = (attributes.root / "reports/report.html").read_text(encoding="utf-8")
    assert "Skipped" in page
    card = (attributes.root / "reports/model_card.md").read_text(encoding="utf-8")
    assert f"No head for guild: {reason}." in card


def test_ids_stay_as_they_came(vectors):
    assert {row["user_id"] for row in vectors} == {ONCE, *(f"用户{n}" for n in range(N_SHOPPERS))}


def test_a_user_with_one_behavior_has_a_vector(vectors):
    (once,) = (row for row in vectors if row["user_id"] == ONCE)
    assert once["n_behaviors"] == 1
    assert once["first_month"] == once["last_month"] == "2023-11"
    assert np.isfinite(once["vector"]).all()


def test_words_of_any_script_are_words(small_shop):
    known = read_json(small_shop.root / "models/vocabulary.json")["words"]
    assert set(known) == {*TEA, *SOUP}


def test_items_without_text_have_an_interest(small_shop):
    assert small_shop.json("reports/catalog/2024-01.json")["without_text"] == 7
    for month in SHOP_MONTHS:
        mapped = read_parquet(small_shop.root / f"data/item_interests/{month}.parquet")
        known = read_parquet(small_shop.root / f"data/catalog/{month}.parquet")
        assert mapped["item_id"].equals(known["item_id"])


def test_columns_beyond_the_contract_go_no_further(small_shop):
    clean = pq.read_schema(small_shop.root / "data/behaviors/2023-11.parquet").names
    assert clean == ["user_id", "item_id", "timestamp", "behavior_type"]
