"""Peak memory of `align` whose stacks grow, with blocks, sections and patches as they are.

    python tests/benchmarks/align_memory.py --sections 16 160 --size 1024 --json

Peak resident memory of a whole process with one worker, per number of sections.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from align_speed import in_own_process, make


def peaks(sections: list[int], size: int, settings: dict[str, Any]) -> dict[str, int]:
    found = {}
    for count in sections:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make(None, size, count, folder / "in.zarr")
            done = in_own_process(folder / "in.zarr", folder / "out", settings)
            found[str(count)] = round(done["peak_mb"])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--sections", type=int, nargs="+", default=[16, 160])
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--preset", default="em_2d_fast")
    parser.add_argument("--settings", default="{}", help="more settings, JSON")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    arguments = parser.parse_args()
    settings = {"preset": arguments.preset, **json.loads(arguments.settings)}
    found = peaks(arguments.sections, arguments.size, settings)
    first, last = (found[str(k)] for k in (arguments.sections[0], arguments.sections[-1]))
    result = {"size": arguments.size, "peak_mb": found, "growth": round(last / first, 3)}
    print(json.dumps(result, indent=None if arguments.json else 1))


if __name__ == "__main__":
    main()
