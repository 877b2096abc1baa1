"""Once, before Airflow's processes start: the database's tables, and the file of logins.

The users are those of AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS; the password of user ``admin`` comes from
LURM_PASSWORD_ADMIN, and so on. The file takes the place of an older one, so that a changed password holds
after the next start.
"""

import json
import os
import subprocess
import sys
from pathlib import Path


def main() -> None:
    """Write the logins, then migrate the database."""
    users = os.environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS"].split(",")
    names = [user.split(":")[0].strip() for user in users]
    passwords = {name: os.environ.get(f"LURM_PASSWORD_{name.upper()}", "") for name in names}
    missing = [name for name, password in passwords.items() if not password]
    if missing:
        wanted = ", ".join(f"LURM_PASSWORD_{name.upper()}" for name in missing)
        sys.exit(f"no password for {', '.join(missing)}: set {wanted} in docker/.env")
    file = Path(os.environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"])
    file.touch(mode=0o600)
    file.write_text(json.dumps(passwords))
    subprocess.run(["airflow", "db", "migrate"], check=True)


if __name__ == "__main__":
    main()
