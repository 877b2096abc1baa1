import shutil
from types import SimpleNamespace

import pytest
import yaml

from lurm.params import load_params
from lurm.releases.plans import (
    RELEASE_MODEL,
    Refresh,
    Retrain,
    months_to_land,
    next_release,
    order_training,
    plan_retraining,
    read_plan,
    write_plan,
)
from tests.pipeline.workspaces import ROOT

YEAR = [f"2017-{month:02}" for month in range(1, 13)]


# ---- the months of a refresh ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("known", "month", "landed"),
    [
        (["2017-11"], "2017-12", ["2017-12"]),
        (["2017-11"], "2018-01", ["2017-12", "2018-01"]),  # one that is not in yet comes along
        (["2017-11", "2017-12"], "2017-11", ["2017-11"]),  # delivered again
        (["2017-11", "2017-12"], "2017-12", ["2017-12"]),
        ([], "2017-12", ["2017-12"]),
    ],
)
def test_a_refresh_lands_its_month_and_those_before_it_that_are_not_in(known, month, landed):
    assert months_to_land(known, month) == landed


def test_a_plan_is_kept_with_its_run(tmp_path):
    plans = [
        Refresh(month="2017-04"),
        Retrain(first="2017-01", last="2017-04", through="2017-02", label_months=("2017-03",)),
    ]
    for plan in plans:
        write_plan(plan, tmp_path)
        assert read_plan(tmp_path) == plan


def test_a_run_that_is_not_open_has_no_plan(tmp_path):
    with pytest.raises(FileNotFoundError, match="run its first step again"):
        read_plan(tmp_path)


# ---- the months of a retraining ------------------------------------------------------------------


@pytest.fixture
def workspace(tmp_path):
    """What a plan asks of a workspace: its settings, and where deliveries lie."""

    def make(known, delivered, as_of="2017-10", label_months=("2017-11", "2017-12")):
        for month in delivered:
            path = tmp_path / f"behaviors/{month}.parquet"
            path.parent.mkdir(exist_ok=True)
            path.touch()
        settings = {
            "months": {month: {} for month in known},
            "evaluation": {"as_of": as_of, "label_months": list(label_months)},
        }
        places = SimpleNamespace(landing=str(tmp_path))
        return SimpleNamespace(params=lambda: settings, places=places)

    return make


def test_plan_retraining_without_label_months_learns_from_the_last_month(workspace):
    plan = plan_retraining(workspace([], YEAR, label_months=()), None, None)
    assert (plan.first, plan.through, plan.last) == ("2017-01", "2017-12", "2017-12")
    assert plan.label_months == ()


def test_a_first_retraining_takes_all_that_is_delivered(workspace):
    plan = plan_retraining(workspace([], YEAR), None, None)
    assert (plan.first, plan.through, plan.last) == ("2017-01", "2017-10", "2017-12")
    assert plan.label_months == ("2017-11", "2017-12")


def test_it_stops_before_a_month_that_is_missing(workspace):
    plan = plan_retraining(workspace([], [*YEAR[:6], *YEAR[7:]]), None, None)
    assert (plan.through, plan.label_months) == ("2017-04", ("2017-05", "2017-06"))


def test_the_first_month_may_be_chosen_before_any_is_in(workspace):
    plan = plan_retraining(workspace([], YEAR), "2017-05", "2017-08")
    assert (plan.first, plan.through, plan.last) == ("2017-05", "2017-08", "2017-10")


def test_a_gap_before_the_label_months_is_kept(workspace):
    plan = plan_retraining(workspace([], YEAR, "2017-08", ["2017-11"]), None, None)
    assert (plan.through, plan.label_months) == ("2017-09", ("2017-12",))


def test_months_that_are_in_and_months_that_are_delivered_count_alike(workspace):
    plan = plan_retraining(workspace(YEAR[:11], YEAR[11:]), None, None)
    assert (plan.first, plan.through, plan.last) == ("2017-01", "2017-10", "2017-12")


def test_months_that_are_in_stay_in_when_the_models_go_back(workspace):
    plan = plan_retraining(workspace(YEAR, []), None, "2017-05")
    assert (plan.label_months, plan.last) == (("2017-06", "2017-07"), "2017-12")


def test_the_label_months_may_lie_in_the_next_year(workspace):
    plan = plan_retraining(workspace([], [*YEAR, "2018-01", "2018-02"]), None, "2017-12")
    assert plan.label_months == ("2018-01", "2018-02")


@pytest.mark.parametrize(
    ("known", "delivered", "through", "missing"),
    [
        ([], YEAR[:6], "2017-05", "missing 2017-07"),
        ([], YEAR[:2], None, "missing months to learn from"),
        ([], [*YEAR[:3], *YEAR[4:]], "2017-06", "missing 2017-04"),
        (YEAR, [], "2016-12", "missing months to learn from"),
    ],
)
def test_a_retraining_without_its_months_is_refused(workspace, known, delivered, through, missing):
    with pytest.raises(ValueError, match=missing):
        plan_retraining(workspace(known, delivered), None, through)


def test_a_retraining_without_any_month_is_refused(workspace):
    with pytest.raises(ValueError, match=r"expected behaviors/<month>\.parquet, found none"):
        plan_retraining(workspace([], []), None, None)


# ---- the order in the settings -------------------------------------------------------------------


def test_the_order_changes_five_values_and_no_comment(tmp_path):
    params = tmp_path / "params.yaml"
    shutil.copyfile(ROOT / "params.yaml", params)
    before = params.read_text("utf-8").splitlines()
    plan = Retrain(
        first="2017-01", last="2017-12", through="2017-08", label_months=("2017-09", "2017-10")
    )
    order_training(params, plan, 2)
    after = params.read_text("utf-8").splitlines()
    changed = [new for old, new in zip(before, after, strict=True) if old != new]
    assert [line.split(":")[0].strip() for line in changed] == [
        *("release", "through", "months", "as_of", "label_months")
    ]
    settings = load_params(params)
    assert settings.training.release == 2
    assert settings.training.months == tuple(YEAR[:8])
    assert settings.training.through == settings.evaluation.as_of == "2017-08"
    assert settings.evaluation.label_months == plan.label_months


def test_the_first_release_is_not_raised(tmp_path):
    params = tmp_path / "params.yaml"
    shutil.copyfile(ROOT / "params.yaml", params)
    plan = Retrain(first="2017-01", last="2017-12", through="2017-10", label_months=("2017-11",))
    order_training(params, plan, 1)
    assert yaml.safe_load(params.read_text("utf-8"))["training"]["release"] == 1


def test_a_number_is_not_given_twice_also_after_a_rollback():
    def workspace(tags, outputs, release):
        return SimpleNamespace(
            ask=lambda *_: "\n".join(tags),
            outputs=lambda: outputs,
            params=lambda: {"training": {"release": release}},
        )

    assert next_release(workspace([], [], 1)) == 1
    assert next_release(workspace(["release/1"], [RELEASE_MODEL], 1)) == 2
    assert next_release(workspace(["release/1", "release/2-r2"], [RELEASE_MODEL], 1)) == 3
    assert next_release(workspace(["release/9", "release/10"], [RELEASE_MODEL], 9)) == 11
    assert next_release(workspace(["release/1", "release/notes"], [RELEASE_MODEL], 1)) == 2


# ---- names ---------------------------------------------------------------------------------------


def vectors(**months):
    return {f"data/user_vectors/2017-{month[1:]}.parquet": md5 for month, md5 in months.items()}


def names(now, published, month="2017-04"):
    """The tags of a refresh: vectors now, and under each tag that there is."""

    def ask(_, __, pattern):
        prefix = pattern.removesuffix("*")
        return " ".join(tag for tag in published if tag.startswith(prefix))

    def outputs(revision=None):
        return now if revision is None else published[revision]

    known = [path.split("/")[-1].removesuffix(".parquet") for path in now]
    workspace = SimpleNamespace(
        params=lambda: {"months": dict.fromkeys(known)}, outputs=outputs, ask=ask
    )
    return Refresh(month=month).tags(workspace)


def test_a_new_month_gets_its_first_name():
    assert names(vectors(m03="a", m04="b"), {}) == ["refresh/2017-04/r1"]


def test_a_month_that_came_along_or_was_never_published_gets_none():
    assert names(vectors(m03="a", m04="b", m05="c"), {}) == ["refresh/2017-04/r1"]


def test_a_corrected_month_and_published_ones_after_it_get_new_names():
    published = {
        "refresh/2017-04/r1": vectors(m04="b"),
        "refresh/2017-05/r1": vectors(m05="c"),
        "refresh/2017-05/r2": vectors(m05="d"),
    }
    now = vectors(m03="a", m04="b2", m05="d2", m06="e")
    assert names(now, published) == ["refresh/2017-04/r2", "refresh/2017-05/r3"]


def test_numbers_go_on_after_the_last_where_erasure_left_gaps():
    published = {f"refresh/2017-04/r{n}": vectors(m04=f"b{n}") for n in (9, 12)}
    assert names(vectors(m04="b12"), published) == []
    assert names(vectors(m04="b9"), published) == ["refresh/2017-04/r13"]


def test_what_has_not_changed_gets_no_new_name():
    published = {"refresh/2017-04/r1": vectors(m04="b"), "refresh/2017-05/r1": vectors(m05="c")}
    assert names(vectors(m04="b", m05="c"), published) == []
    assert names(vectors(m04="b", m05="c2"), published) == ["refresh/2017-05/r2"]
