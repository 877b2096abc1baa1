import signal
import subprocess
import sys


def test_a_stage_that_is_told_to_end_cleans_up(tmp_path):
    script = f"""
import sys, time
sys.path[:0] = {sys.path!r}
from pathlib import Path
from lurm.console import run_stage
from lurm.storage import scratch
def main():
    with scratch(Path({str(tmp_path)!r}), "spill-"):
        print("half way", flush=True)
        time.sleep(60)
run_stage(main)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"half way\n"
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 143
    assert list(tmp_path.iterdir()) == []
