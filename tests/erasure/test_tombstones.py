"""Tombstones tell whether an id was forgotten to whoever has the key, and nothing to anybody else."""

import pyarrow as pa
import pytest

from lurm.erasure.tombstones import Tombstones, erasure_key, read_tombstones

KEY = b"a key that is long enough to be one"


def test_the_key_comes_from_the_environment_or_from_a_file_it_names(tmp_path):
    file = tmp_path / "key"
    file.write_bytes(KEY + b"\n")
    assert erasure_key({"LURM_ERASURE_KEY": KEY.decode()}) == KEY
    assert erasure_key({"LURM_ERASURE_KEY_FILE": str(file)}) == KEY


@pytest.mark.parametrize("environment", [{}, {"LURM_ERASURE_KEY": "  "}])
def test_without_a_key_it_is_said_what_to_set(environment):
    with pytest.raises(ValueError, match=r"in LURM_ERASURE_KEY, or in the file .* found neither"):
        erasure_key(environment)


def test_a_short_key_and_a_file_that_is_not_there_are_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 32 characters, got 5"):
        erasure_key({"LURM_ERASURE_KEY": "short"})
    with pytest.raises(FileNotFoundError, match="found none"):
        erasure_key({"LURM_ERASURE_KEY_FILE": str(tmp_path / "none")})


def test_an_id_is_found_whether_it_is_delivered_as_a_number_or_as_its_digits():
    tombstones = Tombstones(KEY).adding([Tombstones(KEY).hash("12"), Tombstones(KEY).hash("茶 3")])
    for users in ([11, 12, None, 12], ["11", "12", None, "12"]):
        rows, hashes = tombstones.find(pa.chunked_array([pa.array(users)]))
        assert rows.tolist() == [False, True, False, True]
        assert hashes == {tombstones.hash(12)}
    rows, _ = tombstones.find(pa.chunked_array([pa.array(["茶 3", "茶", "", "012"])]))
    assert rows.tolist() == [True, False, False, False]


def test_nobody_is_found_where_nobody_was_forgotten_and_in_no_rows():
    assert Tombstones(KEY).find(pa.chunked_array([pa.array([1, 2])]))[0].tolist() == [False, False]
    assert Tombstones(KEY).find(pa.chunked_array([], pa.int64()))[0].tolist() == []


def test_what_is_written_holds_no_id_and_is_read_with_the_same_key_only():
    tombstones = Tombstones(KEY).adding([Tombstones(KEY).hash("household 7")])
    text = tombstones.to_json()
    assert "household" not in text
    assert KEY.decode() not in text + repr(tombstones)
    assert read_tombstones(text, KEY) == tombstones
    with pytest.raises(ValueError, match="key that the 1 tombstones were made with, got another"):
        read_tombstones(text, KEY[::-1])
