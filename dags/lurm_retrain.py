"""### Retraining

Trains all models anew: item encoder, interests, SMEN, heads. Without a release to stand on it makes the
first one, from the months that lie in the landing place.

By hand, or by `LURM_RETRAIN_SCHEDULE`. `through` is the last month to learn from; without it, the latest
one whose label months are there. `first` is where users' lives begin, asked only before the first release.

`gate` compares the new models with the standing ones on the same users, labels and folds, and looks at
the share of interests without behaviors. What does not pass is not published: the standing release stays,
and the task's log says why. The limits are in `params.yaml`, section `gate`.
"""

from airflow.sdk import DAG, Asset, Param, chain
from lurm_notices import notice, overdue
from lurm_steps import SETTINGS, stage, step

MONTH = {"pattern": r"^\d{4}-(0[1-9]|1[0-2])$"}

with DAG(
    "lurm_retrain",
    doc_md=__doc__,
    schedule=SETTINGS.retrain_schedule,
    start_date=SETTINGS.since,
    catchup=False,
    max_active_runs=1,
    params={name: Param(None, ["null", "string"], **MONTH) for name in ("first", "through")},
    default_args={
        "retries": 2,
        "retry_delay": SETTINGS.retry_delay,
        "on_failure_callback": notice(),
    },
    dagrun_timeout=2 * SETTINGS.deadline,
    on_failure_callback=overdue(),
    tags=["lurm"],
) as dag:
    opened = step(
        *("open", "retrain"),
        *("--first", "{{ params.first or '' }}", "--through", "{{ params.through or '' }}"),
    )
    update_catalog = stage("update_catalog")
    validate_logs = stage("validate_logs", on_success_callback=notice())
    embed_items = stage("embed_items")
    cluster_interests = stage("cluster_interests")
    assign_items = stage("assign_items")
    build_boi = stage("build_boi")
    pretrain_smen = stage("pretrain_smen")
    map_interests = stage("map_interests")
    encode_users = stage("encode_users")
    train_heads = stage("train_heads")
    apply_heads = stage("apply_heads")
    index_users = stage("index_users")
    watch_drift = stage("watch_drift")
    compare_months = stage("compare_months", on_success_callback=notice())
    report = stage("report")
    cards = stage("cards")
    explore = stage("explore")
    gate = step("gate", "gate")
    publish = step("publish", "publish", outlets=[Asset("lurm_release")])
    chain(opened, update_catalog, validate_logs, embed_items, cluster_interests)
    chain(cluster_interests, [assign_items, pretrain_smen])
    chain(assign_items, build_boi, encode_users, index_users, report)
    chain(pretrain_smen, encode_users, train_heads, apply_heads, watch_drift, compare_months)
    chain(pretrain_smen, map_interests, explore)
    chain(compare_months, report, [cards, explore], gate, publish)
