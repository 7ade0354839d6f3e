"""How long `warpbeam --help` takes.

python tests/benchmarks/start_up.py --json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
CALL = "import conftest; from warpbeam.pipelines.cli import main; main(['--help'])"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    arguments = parser.parse_args()
    seconds = []
    for _ in range(arguments.runs):
        begin = time.perf_counter()
        subprocess.run(
            [sys.executable, "-c", CALL], check=True, stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(TESTS)},
        )  # fmt: skip
        seconds.append(time.perf_counter() - begin)
    print(json.dumps({"help_s": round(statistics.median(seconds), 3)}))


if __name__ == "__main__":
    main()
