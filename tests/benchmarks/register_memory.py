"""Peak memory of a registration whose volumes grow and whose chunks stay.

python tests/benchmarks/register_memory.py --sides 192 384      # the second has 8 times the volume

Peak resident memory of a whole process with one worker, and of one that imports the job alone. A
chunk of 64 voxels looks at 140 around it: volumes should be larger.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
from register_cases import filaments

TESTS = Path(__file__).resolve().parents[1]
_CODE = """
import sys
from peak_memory import peak_mb
from warpbeam.pipelines import register
from warpbeam.pipelines.register_config import RegisterConfig
from warpbeam.transforms.process import set_up_jax
if len(sys.argv) > 1:
    fixed, moving, output, chunk = sys.argv[1:]
    register.run(RegisterConfig(fixed=fixed, moving=moving, output=output,
        chunks={"size_px": int(chunk)}, run={"workers": 1, "report": False},
        volume={"chunk_3d": (16, 64, 64), "shard_3d": (32, 128, 128)}))
else:
    set_up_jax()
    import jax.numpy
    jax.numpy.zeros(3).sum()
print(peak_mb())
"""


def peak_of_job(*arguments: object) -> float:
    done = subprocess.run(
        [sys.executable, "-c", _CODE, *map(str, arguments)],
        cwd=TESTS, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return float(done.stdout.split()[-1])


def main() -> None:
    import tifffile

    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--sides", type=int, nargs="+", default=(192, 384))
    parser.add_argument("--chunk", type=int, default=64)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result: dict[str, object] = {"imports_mb": round(peak_of_job()), "peak_mb": {}}
    with tempfile.TemporaryDirectory() as folder:
        for side in options.sides:
            volume = np.rint(1000 * filaments((side,) * 3) + 500).astype(np.uint16)
            paths = [f"{folder}/{name}_{side}.tif" for name in ("fixed", "moving")]
            for path, shift in zip(paths, (0, 3), strict=True):
                tifffile.imwrite(path, np.roll(volume, shift, 1), photometric="minisblack")
            found = peak_of_job(*paths, f"{folder}/out_{side}", options.chunk)
            result["peak_mb"][str(side)] = round(found)  # type: ignore[index]
    print(json.dumps(result, indent=None if options.json else 1))


if __name__ == "__main__":
    main()
