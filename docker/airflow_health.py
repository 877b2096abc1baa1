"""Exit status 0 if a component of Airflow is healthy, by the word of the API server.

    python airflow_health.py [metadatabase|scheduler|dag_processor|triggerer]

The API server knows the last heartbeat of every component. Asking it takes a tenth of a second, where
`airflow jobs check` takes seconds of a processor each time. LURM_API is the server's address.
"""

import json
import os
import sys
from urllib.request import urlopen


def main() -> None:
    """Ask, and say what is wrong if something is."""
    component = sys.argv[1] if len(sys.argv) > 1 else "metadatabase"
    server = os.environ.get("LURM_API", "http://localhost:8080")
    try:
        with urlopen(f"{server}/api/v2/monitor/health", timeout=8) as answer:
            status = (json.load(answer).get(component) or {}).get("status", "no sign of it")
    except OSError as error:
        sys.exit(f"the API server at {server} does not answer: {error}")
    if status != "healthy":
        sys.exit(f"{component}: expected healthy, got {status}")


if __name__ == "__main__":
    main()
