"""An affine map alone through the chunks of a registration: what geometry costs, and estimation.

python tests/benchmarks/register_geometry.py --volume fix.tif --shape 96 160 160

The fixed volume is the moving one at an exact affine map (2 degrees, 3 %, 6 voxels). "given": the
job gets the matrix and draws it; "estimated": it finds it. A voxel is corrupted where the result is
more than 1 % of the grey range off the moving volume resampled as a whole by SciPy.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).resolve().parent))
from register_cases import Pair, affine_matrix, filaments, make_pair, real_source

_CORRUPT = 0.01


def registered(paths: list[Path], output: Path, **settings: object) -> tuple[np.ndarray, ...]:
    """Displacement of all fixed voxels, and the volume."""
    from warpbeam.kernels.geometry.box import Box
    from warpbeam.kernels.maps.interpolate import offsets_at
    from warpbeam.pipelines import register
    from warpbeam.pipelines.register_config import RegisterConfig
    from warpbeam.transforms.storage import displacements, volume

    register.run(
        RegisterConfig(fixed=str(paths[0]), moving=str(paths[1]), output=str(output),
                       run={"report": False}, **settings)
    )  # fmt: skip
    m = displacements.load(str(output / "maps" / "forward.zarr")).read()
    level = volume.open_volume(str(output / "volume.ome.zarr")).level(0)
    drawn = level.read(Box.of_shape(level.shape))[0, 0]
    grid = np.indices(drawn.shape, dtype=float)
    return offsets_at(m, grid, "nearest"), drawn


def judged(pair: Pair, found: tuple[np.ndarray, ...], whole: np.ndarray) -> dict[str, float]:
    errors, drawn = pair.errors(found[0]), found[1]
    apart = np.abs(drawn.astype(float) - whole)[pair.seen]
    spread = float(np.ptp(whole[pair.seen]))
    return {
        "median_voxels": round(float(np.median(errors)), 5),
        "p95_voxels": round(float(np.quantile(errors, 0.95)), 5),
        "largest_voxels": round(float(errors.max()), 5),
        "corrupted_fraction": float((apart > _CORRUPT * spread).mean()),
    }


def main() -> None:
    import tifffile

    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--volume", type=Path, help="TIFF to cut from; else synthetic filaments")
    parser.add_argument("--shape", type=int, nargs=3, default=(96, 160, 160))
    parser.add_argument("--chunk", type=int, default=64)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    shape = tuple(options.shape)
    source = real_source(options.volume, shape) if options.volume else filaments(shape)
    matrix = affine_matrix(source.shape)
    pair = make_pair(source, largest=0.0, matrix=matrix)
    whole = ndimage.affine_transform(
        pair.moving.astype(float), matrix[:3, :3], matrix[:3, 3], order=1, prefilter=False
    )
    chunks = {"size_px": options.chunk}
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("fixed.tif", "moving.tif")]
        for path, volume in zip(paths, (pair.fixed, pair.moving), strict=True):
            tifffile.imwrite(path, volume, photometric="minisblack")
        start = Path(folder) / "start.json"
        start.write_text(json.dumps({"matrix": matrix.tolist()}))
        given = registered(
            paths, Path(folder) / "given", engine="none", chunks=chunks,
            coarse={"start": "physical", "initial": str(start), "model": "none"},
        )  # fmt: skip
        estimated = registered(paths, Path(folder) / "estimated", chunks=chunks)
    result = {
        "shape": list(source.shape),
        "given": judged(pair, given, whole),
        "estimated": judged(pair, estimated, whole),
    }
    print(json.dumps(result, indent=None if options.json else 1))


if __name__ == "__main__":
    main()
