from pathlib import Path

import pytest

from lurm.releases.places import Places

PLACES = Places(Path("/platform"), "", "")


def test_places_come_from_the_environment():
    places = Places.from_environment(
        {"LURM_HOME": "/h", "LURM_REPOSITORY": "git@example.org:p.git", "LURM_LANDING": "s3://b/l"}
    )
    assert places == Places(Path("/h"), "git@example.org:p.git", "s3://b/l")


def test_all_places_that_are_not_set_are_named():
    with pytest.raises(ValueError, match="LURM_REPOSITORY, LURM_LANDING in the environment"):
        Places.from_environment({"LURM_HOME": "/h", "LURM_LANDING": ""})


@pytest.mark.parametrize("who", ["somebody:s3cret", "s3cret"])
def test_a_repository_that_is_named_with_a_password_is_refused_without_telling_it(who):
    environment = {"LURM_HOME": "/h", "LURM_LANDING": "/l"}
    environment["LURM_REPOSITORY"] = f"https://{who}@example.org/p.git"
    with pytest.raises(ValueError, match="without a password") as refused:
        Places.from_environment(environment)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    "run", ["manual__2017-08-01T00:00:00+00:00", "../../etc", "a b/c", "..a", "año", "x" * 50]
)
def test_any_name_of_a_run_gives_a_folder_directly_under_the_runs(run):
    folder = PLACES.run_folder(run)
    assert folder.parent == PLACES.runs
    assert not folder.name.startswith(".")


@pytest.mark.parametrize("run", ["", ".", "..", "..."])
def test_a_run_needs_a_name(run):
    with pytest.raises(ValueError, match="expected the name of a run"):
        PLACES.run_folder(run)
