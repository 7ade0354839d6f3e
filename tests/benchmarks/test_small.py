"""The benchmarks in their small form: they run, and their figures make sense."""

import importlib.util
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
_spec = importlib.util.spec_from_file_location("run_all", HERE / "run_all.py")
assert _spec is not None
assert _spec.loader is not None
run_all = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(run_all)

# What holds on small mosaics too, by the script's name.
LIMITS = {
    "stitch_positions.py": lambda r: r["position_max_px"] < 0.3 and not r["blank_accepted"],
    "solve_speed.py": lambda r: r["wall_s"] < 10,
    "fusion_speed.py": lambda r: r["kernel_of_limit_cpu"] > 0.1 and r["job_of_limit_wall"] > 0,
    "fusion_scaling.py": lambda r: max(r["worker_mb"].values()) < 600,
    "seam_steps.py": lambda r: r["corrected"]["max_percent"] < r["as_it_came"]["max_percent"] / 3,
    "accelerator.py": lambda r: all(
        case["from_cpu"]["max_px"] <= 0.02 and case["known"] > 0.9
        for name, case in r.items()
        if "-D" in name
    ),
    "elastic_stitch.py": lambda r: (
        r["elastic_seam_px"]["p95"] < 1 < r["rigid_seam_px"]["median"] and r["cpu_s"]["job"] < 30
    ),
    "align_stack.py": lambda r: (
        r["residual_px"]["median"] < 0.5 * r["before_px"]["median"]
        and r["blocks_vs_chain_px"]["median"] < 0.1
    ),
    "align_limit.py": lambda r: (
        max(r["least_step_error_px"]) < min(0.45, max(r["tissue_step_px"]["deviation"]) + 0.01)
    ),
    "align_speed.py": lambda r: r["residual_px"]["median"] < 1 and r["source_mpx_per_cpu_s"] > 0,
    "align_memory.py": lambda r: r["growth"] < 1.2,
    "register_accuracy.py": lambda r: (
        r["warpbeam"]["median_voxels"] < 0.3 < r["before"]["median_voxels"]
        and r["warpbeam"]["folded_fraction"] == 0
    ),
    "register_geometry.py": lambda r: (
        r["given"]["largest_voxels"] <= 0.01
        and r["given"]["corrupted_fraction"] == 0
        and r["estimated"]["median_voxels"] < 0.2
    ),
    "register_memory.py": lambda r: r["peak_mb"]["48"] < r["imports_mb"] + 500,
    "demo_agreement.py": lambda r: r["agreement_median_px"] < 0.6 and r["links_kept"] == 8,
    "reader_speed.py": lambda r: all(
        row["own"] is not None and row["imageio"] is not None
        for name, row in r.items()
        if name != "benchmark"
    ),
    "segment_plate.py": lambda r: r["same_objects_as_tuned"] and r["objects"] > 100,
    "segment_f1.py": lambda r: (
        r["plate"]["nuclei"]["f1"] > 0.93
        and r["plate"]["otsu"]["f1"] < r["plate"]["otsu_cut"]["f1"]
    ),
    "segment_volume.py": lambda r: r["same_partition"] and min(r["edges"], r["objects"]) > 0,
    "segment_link.py": lambda r: (
        r["mean"]["warpbeam"]["recall"] > 0.9 and r["mean"]["warpbeam"]["precision"] > 0.98
    ),
    "segment_agglomerate.py": lambda r: (
        r["mean"]["rand_error_agglomerated"] < 0.3 < r["mean"]["rand_error_linked"]
    ),
    "segment_track.py": lambda r: (
        r["nuclei"]["hungarian"]["correct"] > 0.95 and not r["nuclei"]["hungarian"]["numbers_twice"]
    ),
    "label_graph.py": lambda r: (
        r["same_in_parts"] and r["path_is_one_object"] and r["path_rounds"] <= r["rounds_allowed"]
    ),
    "database_speed.py": lambda r: r["sqlite_rows_per_s"]["new"] > 1000,
    "start_up.py": lambda r: r["help_s"] < 0.4,
}


@pytest.mark.parametrize("line", run_all.SMALL)
def test_benchmark(line):
    found = run_all.run(line)
    assert "error" not in found, found
    assert LIMITS[line.split()[0]](found), found


def test_the_small_form_has_every_script_of_the_full_one():
    assert {line.split()[0] for line in run_all.SMALL} == {line.split()[0] for line in run_all.FULL}
