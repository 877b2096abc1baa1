import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lurm.interests.clustering import cluster_onward
from lurm.interests.lineage import (
    changes,
    first_lineage,
    next_lineage,
    places,
    remain,
    standing_interests,
)
from tests.interests.test_clustering import planted


def test_places_are_those_of_a_literal_loop():
    vectors, labels = planted(300, 7)
    labels[labels == 3] = -1
    found = places(vectors, labels, 9)
    for d in range(9):
        rows = [x for x, label in zip(vectors.astype(float), labels, strict=True) if label == d]
        total = np.sum(rows, axis=0) if rows else np.zeros(32)
        length = np.linalg.norm(total)
        np.testing.assert_allclose(found[d], total / length if rows else total, atol=1e-6)


def test_items_that_were_not_there_stood_in_no_interest():
    nearest = pa.table({"item_id": [7, 3, 5], "interest": pa.array([0, 1, 2], pa.int32())})
    stood = standing_interests(pa.chunked_array([[3, 4, 5, 7]]), nearest)
    assert stood.tolist() == [1, -1, 2, 0]


def test_planted_interests_that_stand_keep_their_rows_and_are_as_good_as_25_rounds():
    vectors, labels = planted(4_000, 40, noise=0.7)
    starts = places(vectors, labels, 40)
    found, lost = cluster_onward(vectors, starts, rounds=25, seed=0)
    kept, cosines = remain(starts, found.centres, lost, 0.7)
    assert kept.all()
    assert cosines.min() > 0.99
    agree = (vectors @ found.centres.T).argmax(axis=1) == labels
    assert agree.mean() > 0.99


def test_an_interest_without_items_moves_to_where_items_lie_far_from_all():
    vectors, labels = planted(2_000, 20, noise=0.3)
    stood = np.where(labels == 19, -1, labels)
    stood = np.where(stood == 0, 1, stood)  # nor is anything left of the first
    starts = places(vectors, stood, 20)
    found, lost = cluster_onward(vectors, starts, rounds=25, seed=0)
    kept, _ = remain(starts, found.centres, lost, 0.7)
    assert {0, 19} <= set(np.flatnonzero(~kept))
    assert len(np.unique((vectors @ found.centres.T).argmax(axis=1))) == 20


def test_the_order_of_items_does_not_change_where_interests_go():
    vectors, labels = planted(600, 10)
    order = np.random.default_rng(3).permutation(600)
    starts = places(vectors, labels, 10)
    one, two = (cluster_onward(v, starts, rounds=5, seed=0)[0] for v in (vectors, vectors[order]))
    assert one.centres.tobytes() == two.centres.tobytes()


@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=6), min_size=1, max_size=5))
def test_no_id_is_ever_given_twice_and_every_row_has_one(releases):
    lineage = first_lineage(np.full(4, 0.25), "2017-01")
    seen = {row["interest_id"]: row["since"] for row in lineage.to_pylist()}
    size = 4
    for number, kept in enumerate(releases, start=2):
        stays = np.array([k and row < size for row, k in enumerate(kept)])
        shares = np.full(len(kept), 1 / len(kept))
        before = {
            r["interest"]: r["interest_id"] for r in lineage.to_pylist() if r["until"] is None
        }
        lineage = next_lineage(
            lineage, stays, np.ones(len(kept)), shares, np.full(size, 1 / size), f"2017-{number:02}"
        )
        rows = lineage.to_pylist()
        assert [row["interest_id"] for row in rows] == sorted({row["interest_id"] for row in rows})
        for row in rows:
            assert seen.setdefault(row["interest_id"], row["since"]) == row["since"]
            assert (row["until"] is None) == (row["status"] != "retired")
        now = {r["interest"]: r["interest_id"] for r in rows if r["status"] != "retired"}
        assert sorted(now) == list(range(len(kept)))
        for row in now:
            assert (now[row] == before.get(row)) == bool(stays[row])
        assert seen.keys() == {row["interest_id"] for row in rows}
        size = len(kept)


def test_what_is_retired_stays_retired_with_the_month_it_ended():
    lineage = first_lineage(np.array([0.5, 0.5]), "2017-01")
    for month, kept in (("2017-02", [True, False]), ("2017-03", [True, True])):
        lineage = next_lineage(
            lineage, np.array(kept), np.ones(2), np.array([0.5, 0.5]), np.array([0.6, 0.4]), month
        )
    rows = {row["interest_id"]: row for row in lineage.to_pylist()}
    assert rows[1]["status"] == "retired"
    assert (rows[1]["since"], rows[1]["until"]) == ("2017-01", "2017-02")
    assert (rows[2]["status"], rows[2]["interest"], rows[2]["since"]) == ("kept", 1, "2017-02")


def test_shares_and_cosines_stand_beside_what_they_are_of():
    lineage = first_lineage(np.array([0.5, 0.3, 0.2]), "2017-01")
    kept, cosines = np.array([True, False, True]), np.array([0.9, 0.1, 1.0])
    lineage = next_lineage(
        lineage, kept, cosines, np.array([0.6, 0.1, 0.3]), np.array([0.4, 0.4, 0.2]), "2017-02"
    )
    rows = {row["interest_id"]: row for row in lineage.to_pylist()}
    assert rows[0]["cosine"] == pytest.approx(0.9)
    assert [rows[n]["share"] for n in range(4)] == [0.6, 0.4, 0.3, 0.1]
    assert rows[1]["cosine"] is rows[3]["cosine"] is None
    # Six items: two stay, one moves to a kept interest, one to the born one, one was not there.
    stood, now = np.array([0, 2, 0, 1, -1, 1]), np.array([0, 2, 2, 1, 0, 0])
    told = changes(lineage, stood, now, np.array([4, 2, 1, 1, 1, 1]))
    assert (told["kept"], told["born"], told["retired"]) == (2, 1, 1)
    assert told["behaviors_kept"] == 0.6
    assert told["items_kept"] == pytest.approx(2 / 6, abs=1e-6)
    assert told["centre_cosine"]["least"] == pytest.approx(0.9)
