"""### The month's refresh

Brings one month in, and publishes a vector for every user as of its end, under the standing models.

It runs by itself on the first of the following month, for the month before, and on the arrival of a month
(DAG `lurm_arrival`). History is loaded with `airflow backfill create --dag-id lurm_refresh`. A month
delivered again runs again, with what hangs on it and nothing else.

| task | |
|---|---|
| `await_delivery` | waits for `behaviors/<month>.parquet` in the landing place, up to a deadline |
| `open` | a workspace on the published branch, with the month landed in it |
| the stages | as in `dvc.yaml`; each tells rows in, out and set aside, *Report* shows its page |
| `publish` | files to the store, then `refresh/<month>` becomes visible in one step |

**It stopped?** The log's last line says why. Correct the cause, then clear the failed task: it goes on
from there. A refused delivery: read *Report* of `validate_logs`, deliver the month again, clear `open`
with what follows it. `encode_users` *waits* while an earlier month is refused; it goes on by itself.
"""

from datetime import timedelta

from airflow.sdk import DAG, Asset, CronPartitionTimetable, Param, chain
from lurm_delivery import DeliverySensor
from lurm_notices import notice, overdue
from lurm_steps import SETTINGS, stage, step

with DAG(
    "lurm_refresh",
    doc_md=__doc__,
    schedule=CronPartitionTimetable(
        "0 0 1 * *", timezone="UTC", run_offset=-1, key_format="%Y-%m", run_immediately=False
    ),
    start_date=SETTINGS.since,
    catchup=False,
    max_active_runs=SETTINGS.parallel_runs,
    params={"month": Param(None, ["null", "string"], pattern=r"^\d{4}-(0[1-9]|1[0-2])$")},
    default_args={
        "retries": 2,
        "retry_delay": SETTINGS.retry_delay,
        "on_failure_callback": notice(),
    },
    dagrun_timeout=2 * SETTINGS.deadline,  # of which one may pass until the month is delivered
    on_failure_callback=overdue(),
    tags=["lurm"],
) as dag:
    month = "{{ dag_run.partition_key or params.month or '' }}"
    await_delivery = DeliverySensor(
        task_id="await_delivery", month=month, landing=SETTINGS.landing, retries=0
    )
    opened = step("open", "refresh", "--month", month)
    update_catalog = stage("update_catalog")
    validate_logs = stage("validate_logs", on_success_callback=notice())
    assign_items = stage("assign_items")
    build_boi = stage("build_boi")
    # Waits here for an earlier month that was refused, asking again after each delay.
    encode_users = stage("encode_users", retries=SETTINGS.waits, max_retry_delay=timedelta(days=1))
    apply_heads = stage("apply_heads")
    index_users = stage("index_users")
    watch_drift = stage("watch_drift", on_success_callback=notice())
    compare_months = stage("compare_months", on_success_callback=notice())
    report = stage("report")
    cards = stage("cards")
    explore = stage("explore")
    publish = step(
        "publish", "publish", max_active_tis_per_dag=1, outlets=[Asset("lurm_user_vectors")]
    )
    chain(await_delivery, opened, update_catalog, [validate_logs, assign_items], build_boi)
    chain(build_boi, encode_users, [apply_heads, index_users, compare_months])
    chain(apply_heads, watch_drift, report)
    chain([index_users, compare_months], report, [cards, explore], publish)
