"""Both public editions of the Amazon reviews land from files in exactly their formats."""

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lurm.examples import amazon_reviews

REVIEWS_2018 = [
    {
        "overall": 5.0,
        "vote": "2",
        "verified": True,
        "reviewTime": "01 1, 2018",
        "reviewerID": "A0USER",
        "asin": "0000000001",
        "style": {"Size:": " Large", "Color:": " Charcoal"},
        "reviewerName": "Ä. Reader",
        "reviewText": "Fits.\nWashes well.",
        "summary": "Good",
        "unixReviewTime": 1514764800,
    },
    {
        "overall": 2.0,
        "verified": False,
        "reviewTime": "02 28, 2018",
        "reviewerID": "A1USER",
        "asin": "0000000002",
        "image": ["https://example.org/one.jpg"],
        "reviewText": "No.",
        "summary": "No",
        "unixReviewTime": 1519776000,
    },
    {"reviewerID": "A1USER", "asin": "0000000009", "unixReviewTime": 1519776000},
    {"reviewerID": "A1USER", "asin": "0000000002"},
    {"reviewerID": "", "asin": "0000000002", "unixReviewTime": 1519776000},
    {"reviewerID": "A1USER", "asin": "0000000002", "unixReviewTime": 1519776000000},
]
META_2018 = [
    {
        "category": ["Clothing", "Men", "Shirts"],
        "tech1": "",
        "description": ["Cotton."],
        "fit": "",
        "title": "Shirt &amp; tie",
        "also_buy": [],
        "image": ["https://example.org/one.jpg"],
        "tech2": "",
        "brand": "Knit",
        "feature": ["Cotton"],
        "rank": ["5,217,341 in Clothing ("],
        "also_view": ["0000000002"],
        "details": {"ASIN: ": "0000000001"},
        "main_cat": '<img src="https://example.org/nav.png" class="nav" alt="AMAZON FASHION"/>',
        "similar_item": "",
        "date": "5 star",
        "price": "$9.99",
        "asin": "0000000001",
    },
    {
        "category": [],
        "title": "帽子",
        "brand": "",
        "rank": "186,829 in Beauty (",
        "main_cat": "Luxury Beauty",
        "details": {},
        "asin": "0000000002",
    },
    {"category": [], "title": "帽子 again", "main_cat": "Luxury Beauty", "asin": "0000000002"},
    {"title": "never reviewed", "asin": "0000000003"},
    {"title": "no number"},
]
REVIEWS_2023 = [
    {
        "rating": 5.0,
        "title": "Good",
        "text": "Fits.",
        "images": [{"small_image_url": "https://example.org/one.jpg", "attachment_type": "IMAGE"}],
        "asin": "B0CHILD001",
        "parent_asin": "B0PARENT01",
        "user_id": "AE0USER",
        "timestamp": 1514764800123,
        "helpful_vote": 2,
        "verified_purchase": True,
    },
    {
        "rating": 1.0,
        "title": "No",
        "text": "",
        "images": [],
        "asin": "B0PARENT02",
        "parent_asin": "B0PARENT02",
        "user_id": "AE1USER",
        "timestamp": 1519862399999,
        "helpful_vote": 0,
        "verified_purchase": False,
    },
]
META_2023 = [
    {
        "main_category": "All Beauty",
        "title": "Soap",
        "average_rating": 4.8,
        "rating_number": 10,
        "features": [],
        "description": ["Soap."],
        "price": 9.99,
        "images": [{"thumb": "https://example.org/t.jpg", "variant": "MAIN", "hi_res": None}],
        "videos": [],
        "store": "Soaps",
        "categories": ["Beauty", "Bath"],
        "details": {"Brand": "Soaps"},
        "parent_asin": "B0PARENT01",
        "bought_together": None,
    },
    {
        "main_category": None,
        "title": "Brush",
        "price": None,
        "store": None,
        "categories": [],
        "details": {},
        "parent_asin": "B0PARENT02",
        "bought_together": None,
        "subtitle": None,
        "author": None,
    },
]


def write(path: Path, records: list[dict], *broken: str) -> Path:
    text = "".join(json.dumps(record) + "\n" for record in records) + "".join(broken)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def rows(path: Path) -> list[dict]:
    return pq.read_table(path).to_pylist()


def test_the_edition_of_2018_lands(tmp_path: Path) -> None:
    reviews = write(
        tmp_path / "Fashion.json.gz", REVIEWS_2018, '{"reviewerID": "A1\n', "not json\n"
    )
    meta = write(tmp_path / "meta_Fashion.json.gz", META_2018, "[1, 2]\n")
    landing = tmp_path / "landing"
    landed = amazon_reviews.land("2018", [reviews], [meta], landing)
    assert landed.behaviors == {"2018-01": 1, "2018-02": 2}
    assert (landed.unknown_items, landed.unknown_rows) == (1, 1)
    assert list(landed.remarks.values()) == [5, 2, 1]
    assert rows(landing / "behaviors" / "2018-01.parquet") == [
        {
            "user_id": "A0USER",
            "item_id": "0000000001",
            "timestamp": datetime(2018, 1, 1, tzinfo=UTC),
        }
    ]
    opening = {row["item_id"]: row for row in rows(landing / "items.parquet")}
    assert list(opening) == ["0000000001", "0000000003"]
    assert opening["0000000001"] == {
        "item_id": "0000000001",
        "title": "Shirt &amp; tie",
        "brand": "Knit",
        "main_category": "AMAZON FASHION",
        "subcategory": "Men",
        "categories": "Clothing > Men > Shirts",
    }
    (hat,) = rows(landing / "items" / "2018-02.parquet")
    assert (hat["title"], hat["main_category"]) == ("帽子", "Luxury Beauty")


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_the_edition_of_2023_lands(suffix: str, tmp_path: Path) -> None:
    reviews = write(tmp_path / f"All_Beauty{suffix}", REVIEWS_2023)
    meta = write(tmp_path / f"meta_All_Beauty{suffix}", META_2023)
    landing = tmp_path / "landing"
    landed = amazon_reviews.land("2023", [reviews], [meta], landing)
    assert landed.behaviors == {"2018-01": 1, "2018-02": 1}
    assert list(landed.remarks.values()) == [0, 0, 0]
    (review,) = rows(landing / "behaviors" / "2018-01.parquet")
    assert review == {
        "user_id": "AE0USER",
        "item_id": "B0PARENT01",
        "timestamp": datetime(2018, 1, 1, 0, 0, 0, 123_000, tzinfo=UTC),
    }
    (soap,) = rows(landing / "items.parquet")
    assert (soap["brand"], soap["subcategory"]) == ("Soaps", "Bath")


def test_several_files_are_one_data_set_in_any_order(tmp_path: Path) -> None:
    halves = [write(tmp_path / f"{n}.jsonl", [record]) for n, record in enumerate(REVIEWS_2023)]
    meta = [write(tmp_path / "meta.jsonl", META_2023)]
    for order in (1, -1):
        amazon_reviews.land("2023", halves[::order], meta, tmp_path / "landing")
    landed = amazon_reviews.land("2023", halves, meta, tmp_path / "landing")
    assert set(landed.files.values()) == {"unchanged"}


def test_the_wrong_edition_is_refused_with_the_fields_it_lacks(tmp_path: Path) -> None:
    reviews = write(tmp_path / "reviews.jsonl", REVIEWS_2023)
    meta = write(tmp_path / "meta.jsonl", META_2023)
    with pytest.raises(ValueError, match="expected lines with reviewerID, asin, unixReviewTime"):
        amazon_reviews.land("2018", [reviews], [meta], tmp_path / "landing")
    with pytest.raises(ValueError, match="expected lines with user_id, parent_asin, timestamp"):
        amazon_reviews.land("2023", [meta], [reviews], tmp_path / "landing")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"found no .*gone\.jsonl"):
        amazon_reviews.land("2023", [tmp_path / "gone.jsonl"], [], tmp_path / "landing")


def test_a_truncated_download_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    many = [record | {"user_id": f"A{n}"} for n in range(5_000) for record in REVIEWS_2023]
    reviews = write(tmp_path / "reviews.jsonl.gz", many)
    meta = write(tmp_path / "meta.jsonl.gz", META_2023)
    reviews.write_bytes(reviews.read_bytes()[:-5_000])
    with pytest.raises(OSError, match="Unexpected end of GZIP"):
        amazon_reviews.land("2023", [reviews], [meta], tmp_path / "landing")
    assert not (tmp_path / "landing").exists()
