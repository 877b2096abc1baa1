#!/usr/bin/env bash
# DVC 3.67.1 reads dvc.lock with ruamel.yaml's YAML(typ="safe"). ruamel.yaml 0.19.1 no longer installs a C parser: it
# falls back to pure Python without a word, and a lock of 500 stages takes three times as long to read. Installing
# ruamel.yaml.clib beside it brings the C parser back; nothing else changes.
#
# Versions: ruamel.yaml 0.19.1, ruamel.yaml.clib 0.2.15, CPython 3.11.
# Output seen:
#   without clib: parser with libyaml False
#   with clib: parser with libyaml True
#   equal contents, read at least twice as fast with clib: True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check ruamel.yaml==0.19.1
cat > "$folder/read.py" <<'PY'
import json, sys, time
import ruamel.yaml
from ruamel.yaml import YAML

stages = {
    f"stage@2017-{n:03}": {
        "cmd": f"python stage.py --month {n}",
        "deps": [{"path": f"data/{n}/{d}.parquet", "hash": "md5", "md5": f"{n * 31 + d:032x}", "size": n} for d in range(8)],
        "outs": [{"path": f"out/{n}/{o}.parquet", "hash": "md5", "md5": f"{n * 37 + o:032x}", "size": o} for o in range(3)],
    }
    for n in range(500)
}
text = json.dumps({"schema": "2.0", "stages": stages}, indent=1)  # JSON is YAML
seconds = []
for _ in range(3):
    start = time.process_time()
    contents = YAML(typ="safe").load(text)
    seconds.append(time.process_time() - start)
json.dump({"seconds": min(seconds), "c": bool(ruamel.yaml.__with_libyaml__), "n": len(contents["stages"])}, open(sys.argv[1], "w"))
PY
"$folder/venv/bin/python" "$folder/read.py" "$folder/without.json"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check ruamel.yaml.clib==0.2.15
"$folder/venv/bin/python" "$folder/read.py" "$folder/with.json"
python3 - "$folder" <<'PY'
import json, sys
without, beside = (json.load(open(f"{sys.argv[1]}/{name}.json")) for name in ("without", "with"))
print("without clib: parser with libyaml", without["c"])
print("with clib: parser with libyaml", beside["c"])
fast = without["n"] == beside["n"] and without["seconds"] >= 2 * beside["seconds"]
print("equal contents, read at least twice as fast with clib:", fast)
sys.exit(not (fast and beside["c"] and not without["c"]))
PY
