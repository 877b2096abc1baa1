"""### A month has arrived

An event of the asset `lurm_delivery` whose partition key is a month starts that month's refresh at once.
Whoever delivers sends it, when all files of the month are there:

    POST /api/v2/assets/events   {"asset_id": ..., "partition_key": "2017-08"}
"""

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, Asset, PartitionedAssetTimetable
from lurm_notices import notice

with DAG(
    "lurm_arrival",
    doc_md=__doc__,
    schedule=PartitionedAssetTimetable(assets=Asset("lurm_delivery")),
    catchup=False,
    default_args={"retries": 2, "on_failure_callback": notice()},
    tags=["lurm"],
) as dag:
    TriggerDagRunOperator(
        task_id="refresh",
        trigger_dag_id="lurm_refresh",
        conf={"month": "{{ dag_run.partition_key }}"},
        logical_date=None,
    )
