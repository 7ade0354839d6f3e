"""Registration of a pair with a known displacement: error of the map, time, folds, and peers.

python tests/benchmarks/register_accuracy.py --volume fix.tif --shape 120 224 224
python tests/benchmarks/register_accuracy.py --shape 96 128 128              # filaments
python tests/benchmarks/register_accuracy.py --volume fix.tif --shape 64 96 96
python tests/benchmarks/register_accuracy.py --volume fix.tif --peers ants greedy
python tests/benchmarks/register_accuracy.py --volume fix.tif --bump 45 --set lattice.retries=0
python tests/benchmarks/register_accuracy.py --volume fix.tif --set engine=greedy --peers greedy

The error is the end-point error over the voxels whose truth stays in view, voxels. The job is run
twice: the first time compiles. Peers get their own affine first, and of their usual settings those
that do best: ANTs `SyNOnly` (40, 20, 0) Mattes; greedy NCC 2x2x2, 100x50x0.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", str(os.cpu_count()))
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
from register_cases import Pair, filaments, make_pair, real_source, steepness


def measured(pair: Pair, displacement: np.ndarray) -> dict[str, float]:
    errors = pair.errors(displacement)
    return {
        "median_voxels": round(float(np.median(errors)), 4),
        "p95_voxels": round(float(np.quantile(errors, 0.95)), 4),
        "folded_fraction": folded(displacement),
    }


def folded(displacement: np.ndarray) -> float:
    """Share of the voxels whose Jacobian determinant, by forward differences, is not positive."""
    size = tuple(n - 1 for n in displacement.shape[1:])
    inner = tuple(slice(0, n) for n in size)
    columns = [np.diff(displacement, axis=a + 1)[(slice(None), *inner)] for a in range(3)]
    for a, column in enumerate(columns):
        column[a] += 1
    first, second, third = columns
    return float(((first * np.cross(second, third, axis=0)).sum(axis=0) <= 0).mean())


class Clock:
    def __enter__(self) -> Clock:
        self._wall, self._cpu = time.perf_counter(), os.times()
        return self

    def __exit__(self, *_: object) -> None:
        now = os.times()
        self.wall_s = round(time.perf_counter() - self._wall, 2)
        own = now.user + now.system - self._cpu.user - self._cpu.system
        children = (now.children_user + now.children_system
                    - self._cpu.children_user - self._cpu.children_system)  # fmt: skip
        self.cpu_s = round(own + children, 2)


def against_whole(
    paths: list[Path], folder: Path, settings: dict[str, object], chunked: np.ndarray
) -> float:
    """Largest difference of the map from that of a single chunk."""
    from warpbeam.pipelines import register
    from warpbeam.pipelines.register_config import RegisterConfig
    from warpbeam.transforms.storage import displacements

    out = folder / "whole"
    changed = settings | {"chunks": {"size_px": 100_000}, "run": {"report": False}}
    register.run(
        RegisterConfig(fixed=str(paths[0]), moving=str(paths[1]), output=str(out), **changed)
    )
    one = displacements.load(str(out / "maps" / "forward.zarr")).read()
    return float(np.abs(one.u - chunked).max())


def ours(
    pair: Pair, folder: Path, settings: dict[str, object], repeats: int, *, whole: bool
) -> dict[str, object]:
    """The whole job, files to files."""
    import tifffile

    from warpbeam.kernels.maps.interpolate import offsets_at
    from warpbeam.pipelines import register
    from warpbeam.pipelines.register_config import RegisterConfig
    from warpbeam.transforms.storage import displacements

    paths = [folder / "fixed.tif", folder / "moving.tif"]
    for path, volume in zip(paths, (pair.fixed, pair.moving), strict=True):
        tifffile.imwrite(path, volume, photometric="minisblack")
    found: dict[str, object] = {}
    for repeat in range(repeats):
        out = folder / f"out{repeat}"
        with Clock() as clock:
            outcome = register.run(
                RegisterConfig(fixed=str(paths[0]), moving=str(paths[1]), output=str(out),
                               run={"report": False}, **settings)
            )  # fmt: skip
        name = "first" if repeat == 0 else "again"
        found[name] = {"wall_s": clock.wall_s, "cpu_s": clock.cpu_s}
    m = displacements.load(str(out / "maps" / "forward.zarr")).read()
    grid = np.indices(pair.fixed.shape, dtype=float)
    dense = np.stack([offsets_at(m, grid[:, z], "nearest") for z in range(len(grid[0]))], axis=1)
    numbers = outcome.numbers
    if whole:
        found["chunks_against_whole_voxels"] = against_whole(paths, folder, settings, m.u)
    names = ("left_median_px", "jacobian_least", "map_bytes_per_voxel", "ncc")
    return found | measured(pair, dense) | {name: numbers[name] for name in names}


def ants_peer(pair: Pair) -> dict[str, object]:
    import ants  # type: ignore[import-not-found]

    fixed, moving = (ants.from_numpy(v.astype(np.float32)) for v in (pair.fixed, pair.moving))
    with tempfile.TemporaryDirectory() as folder, Clock() as clock:
        first = ants.registration(fixed, moving, "Affine", outprefix=f"{folder}/a")
        second = ants.registration(
            fixed, moving, "SyNOnly", initial_transform=first["fwdtransforms"][0],
            reg_iterations=(40, 20, 0), outprefix=f"{folder}/b",
        )  # fmt: skip
        path = ants.apply_transforms(fixed, moving, second["fwdtransforms"], compose=f"{folder}/c")
        field = ants.image_read(path).numpy()
    return {"wall_s": clock.wall_s, "cpu_s": clock.cpu_s} | measured(
        pair, np.moveaxis(field, -1, 0).astype(float)
    )


def greedy_peer(pair: Pair) -> dict[str, object]:
    import SimpleITK
    from picsl_greedy import Greedy3D

    fixed, moving = (
        SimpleITK.GetImageFromArray(v.astype(np.float32)) for v in (pair.fixed, pair.moving)
    )
    threads = f"-threads {os.cpu_count()}"
    with Clock() as clock:
        tool, metric = Greedy3D(), f"-m NCC 2x2x2 -V 0 {threads}"
        start = f"-i f m -a -dof 12 -n 100x50x10 -ia-image-centers -o a {metric}"
        tool.execute(start, f=fixed, m=moving, a=None)
        tool.execute(f"-i f m -it a -n 100x50x0 -wp 0 -o w {metric}", w=None)
        warp = SimpleITK.GetArrayFromImage(tool["w"])
        matrix = np.asarray(tool["a"])
    return {"wall_s": clock.wall_s, "cpu_s": clock.cpu_s} | measured(
        pair, _greedy_total(warp, matrix, pair.fixed.shape)
    )


def _greedy_total(warp: np.ndarray, matrix: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """`p -> A (p + w(p)) - p`; greedy counts xyz in RAS, whose x and y run backwards."""
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    lps = flip @ matrix @ flip
    swap = np.zeros((4, 4))
    swap[[0, 1, 2, 3], [2, 1, 0, 3]] = 1
    affine = swap @ lps @ swap
    grid = np.indices(shape, dtype=float)
    moved = grid + np.moveaxis(warp[..., ::-1], -1, 0)
    linear = np.tensordot(affine[:3, :3], moved, 1) + affine[:3, 3].reshape(3, 1, 1, 1)
    return linear - grid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--volume", type=Path, help="TIFF to cut from; else synthetic filaments")
    parser.add_argument("--shape", type=int, nargs=3, default=(96, 128, 128))
    parser.add_argument("--sigma", type=float, default=24.0, help="of the warp, voxels")
    parser.add_argument("--largest", type=float, default=5.0, help="of the warp, voxels")
    parser.add_argument("--bump", type=float, default=0.0, help="drags one place so far, voxels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--peers", nargs="*", default=(), choices=("ants", "greedy"))
    parser.add_argument("--whole", action="store_true", help="compare with a single chunk too")
    parser.add_argument("--set", action="append", default=[], help="of the job, as YAML")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    shape = tuple(options.shape)
    source = real_source(options.volume, shape) if options.volume else filaments(
        shape, seed=options.seed)  # fmt: skip
    pair = make_pair(
        source, sigma=options.sigma, largest=options.largest, bump=options.bump, seed=options.seed
    )
    result: dict[str, object] = {
        "shape": list(source.shape),
        "before": measured(pair, np.zeros_like(pair.truth)),
        "steepness": steepness(pair),
    }
    with tempfile.TemporaryDirectory() as folder:
        result["warpbeam"] = ours(
            pair, Path(folder), _settings(options.set), options.repeats, whole=options.whole
        )
    for name in options.peers:
        result[name] = {"ants": ants_peer, "greedy": greedy_peer}[name](pair)
    print(json.dumps(result, indent=None if options.json else 1))


def _settings(texts: list[str]) -> dict[str, object]:
    from warpbeam.pipelines.settings import parse_settings

    found: dict[str, object] = {}
    for name, value in parse_settings(texts).items():
        section, _, field = name.partition(".")
        found[section] = {**found.get(section, {}), field: value} if field else value  # type: ignore[dict-item]
    return found


if __name__ == "__main__":
    main()
