"""Registration of two real volumes without a known truth: local correlation before and after.

python tests/benchmarks/register_pair.py fix.tif mov.tif

The median over textured blocks of 24 voxels (those whose deviation in the fixed volume is above the
median of all blocks) that lie in view for at least nine tenths. It says whether the same cells
lie on one another, not how exactly.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from scipy import ndimage

_SIDE = 24


def blocks(volume: np.ndarray) -> np.ndarray:
    """[block, voxels]; the rest at the far ends is left out."""
    n = [s // _SIDE for s in volume.shape]
    cut = volume[tuple(slice(0, k * _SIDE) for k in n)]
    split = cut.reshape(n[0], _SIDE, n[1], _SIDE, n[2], _SIDE)
    return split.transpose(0, 2, 4, 1, 3, 5).reshape(-1, _SIDE**3)


def local_ncc(fixed: np.ndarray, moving: np.ndarray) -> dict[str, float]:
    a, b = (ndimage.gaussian_filter(v.astype(np.float32), 1.0) for v in (fixed, moving))
    first, second, seen = blocks(a), blocks(b), blocks(moving > 0).mean(axis=1) >= 0.9
    textured = (first.std(axis=1) > np.median(first.std(axis=1))) & seen
    x, y = (v[textured] - v[textured].mean(axis=1, keepdims=True) for v in (first, second))
    size = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    ncc = (x * y).sum(axis=1) / np.maximum(size, 1e-9)
    return {"median": round(float(np.median(ncc)), 4), "blocks": int(textured.sum())}


def main() -> None:
    import tifffile

    from warpbeam.kernels.geometry.box import Box
    from warpbeam.pipelines import register
    from warpbeam.pipelines.register_config import RegisterConfig
    from warpbeam.pipelines.settings import load, parse_settings
    from warpbeam.transforms.storage import volume

    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("fixed", type=Path)
    parser.add_argument("moving", type=Path)
    parser.add_argument("--set", action="append", default=[], help="of the job")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    fixed, moving = tifffile.imread(options.fixed), tifffile.imread(options.moving)
    with tempfile.TemporaryDirectory() as folder:
        places = {"fixed": str(options.fixed), "moving": str(options.moving),
                  "output": f"{folder}/out"}  # fmt: skip
        config = load(RegisterConfig, None, places | parse_settings(options.set))
        outcome = register.run(config)
        level = volume.open_volume(f"{folder}/out/volume.ome.zarr").level(0)
        after = level.read(Box.of_shape(level.shape))[0, 0]
    result = {
        "before": local_ncc(fixed, moving) if fixed.shape == moving.shape else None,
        "after": local_ncc(fixed, after),
        **{k: outcome.numbers[k] for k in ("start_score", "left_median_px", "jacobian_least")},
        "seconds": round(outcome.seconds, 1),
    }
    print(json.dumps(result, indent=None if options.json else 1))


if __name__ == "__main__":
    main()
