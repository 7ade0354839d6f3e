"""Everything that the README's tables say, measured again; one JSON object per line.

python tests/benchmarks/run_all.py            # ten to twenty minutes on two cores
python tests/benchmarks/run_all.py --small    # the same scripts on small mosaics, a minute
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent

FULL = [
    *(f"stitch_positions.py --case {case} --canvas em" for case in ("easy", "real", "hard")),
    "stitch_positions.py --case sparse --canvas sparse",
    "solve_speed.py --tiles 100000",
    "solve_speed.py --tiles 500000",
    "fusion_speed.py --grid 10 --threads 1",
    "fusion_speed.py --grid 20 --job",
    "fusion_scaling.py --grids 5 10 20",
    "seam_steps.py",
    "accelerator.py",
    "elastic_stitch.py",
    "align_stack.py --sections 60",
    "align_limit.py --sections 60",
    "align_speed.py",
    "align_memory.py",
    "register_accuracy.py --shape 96 128 128",
    "register_geometry.py",
    "register_memory.py --sides 192 384",
    "demo_agreement.py",
    "reader_speed.py",
    "segment_plate.py",
    "segment_f1.py",
    "segment_volume.py",
    "segment_link.py --seeds 0 1 2 3",
    "segment_agglomerate.py",
    "segment_track.py",
    "database_speed.py",
    "label_graph.py",
    "start_up.py",
]
SMALL = [
    "stitch_positions.py --case real --grid 3 --tile 256",
    "solve_speed.py --tiles 2500",
    "fusion_speed.py --grid 2 --tile 512 --job",
    "fusion_scaling.py --grids 2 3 --tile 512 --repeats 1",
    "seam_steps.py --grid 3",
    "accelerator.py --part 0.05 --repeats 1 --threads 2 --cases 2-D:80/20",
    "elastic_stitch.py --grid 2 --tile 256 --overlap 90 --jitter 6 --repeats 1",
    "align_stack.py --sections 12 --block 6 --size 160 --patch 64",
    "align_limit.py --sections 10 --size 160 --patch 64",
    "align_speed.py --size 320 --sections 3 --preset em_2d",
    "align_memory.py --sections 3 8 --size 320 --preset em_2d",
    "register_accuracy.py --shape 40 56 56 --largest 2 --repeats 1",
    "register_geometry.py --shape 40 64 64 --chunk 32",
    "register_memory.py --sides 48 --chunk 64",
    "demo_agreement.py",
    "reader_speed.py --size 256 --repeats 2",
    "segment_plate.py --tiles 8 --times 1 --size 512 --naive 1 --tuned 4",
    "segment_f1.py --tiles 8 --size 512",
    "segment_volume.py --sides 64 --cut-side 48",
    "segment_link.py --seeds 0 --depth 3",
    "segment_agglomerate.py --seeds 0 --depth 3",
    "segment_track.py --tiles 5 --times 2 --size 512",
    "database_speed.py --sites 4",
    "label_graph.py --edges 50000 --blocks 2000",
    "start_up.py",
]


def run(line: str) -> dict[str, object]:
    """The figures of one script; its error where it has one."""
    script, *options = line.split()
    done = subprocess.run(
        [sys.executable, str(HERE / script), *options, "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        return {"benchmark": line, "error": done.stderr.strip().splitlines()[-1:]}
    return {"benchmark": line, **json.loads(done.stdout.strip().splitlines()[-1])}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--small", action="store_true")
    failed = 0
    for line in SMALL if parser.parse_args().small else FULL:
        found = run(line)
        failed += "error" in found
        print(json.dumps(found), flush=True)
    return min(failed, 1)


if __name__ == "__main__":
    raise SystemExit(main())
