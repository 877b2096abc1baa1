"""A month that never comes, on a real Airflow."""

from collections.abc import Iterator

import pytest

from tests.dags.airflows import Airflow, free_port, open_folder
from tests.pipeline.runs import small_project

pytestmark = pytest.mark.slow


@pytest.fixture
def airflow() -> Iterator[Airflow]:
    """An Airflow that waits fifteen seconds for a month."""
    with open_folder() as folder:
        settings = {"LURM_DEADLINE_HOURS": str(15 / 3600), "LURM_RETRY_SECONDS": "5"}
        started = Airflow(small_project(folder / "project"), folder / "var", free_port(), settings)
        started.up()
        yield started
        started.down()


def test_a_month_that_never_comes_fails_at_the_deadline_and_a_person_is_told(airflow):
    airflow.trigger("lurm_refresh", month="2017-08")
    waiting = lambda: airflow.run_of("2017-08")  # noqa: E731
    run = airflow.wait("2017-08", waiting)["dag_run_id"]
    airflow.wait(
        "waiting without a worker",
        lambda: airflow.tasks("lurm_refresh", run)["await_delivery"] == "deferred",
    )
    airflow.wait_for_run("2017-08", "failed")
    log = airflow.log(run, "await_delivery")
    assert "2017-08 was not delivered to" in log
    assert "Next: deliver the month, then clear this task" in log
