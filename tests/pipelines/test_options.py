"""Beam's options, strictly."""

import pickle

import pytest
from apache_beam.options.pipeline_options import DirectOptions, StandardOptions

from warpbeam.pipelines.options import pipeline_options
from warpbeam.transforms.storage.errors import InputError


def test_the_local_runner_is_named_and_has_workers():
    options = pipeline_options([], 3)
    assert options.view_as(StandardOptions).runner == "FnApiRunner"
    direct = options.view_as(DirectOptions)
    assert (direct.direct_num_workers, direct.direct_running_mode) == (3, "multi_threading")


def test_one_worker_works_in_the_process_itself():
    direct = pipeline_options([], 1).view_as(DirectOptions)
    assert (direct.direct_num_workers, direct.direct_running_mode) == (1, "in_memory")


def test_what_the_user_says_wins():
    flags = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]
    options = pipeline_options(flags, 7)
    direct = options.view_as(DirectOptions)
    assert (direct.direct_num_workers, direct.direct_running_mode) == (2, "multi_processing")


def test_workers_may_be_processes():
    direct = pipeline_options(["--direct_running_mode=multi_processing"], 3).view_as(DirectOptions)
    assert (direct.direct_num_workers, direct.direct_running_mode) == (3, "multi_processing")


def test_kept_views_share_their_values():
    options = pipeline_options([], 3)
    options.view_as(DirectOptions).direct_num_workers = 5
    assert options.view_as(DirectOptions).direct_num_workers == 5
    assert options.get_all_options()["direct_num_workers"] == 5
    again = pickle.loads(pickle.dumps(options))
    assert again.view_as(DirectOptions).direct_num_workers == 5


def test_another_runner_is_left_alone():
    options = pipeline_options(["--runner=FlinkRunner", "--parallelism=64"], 4)
    assert options.view_as(StandardOptions).runner == "FlinkRunner"


@pytest.mark.parametrize(
    ("flag", "near"),
    [
        ("--direct_num_worker=2", "--direct_num_workers?"),
        ("--paralelism=64", "--parallelism?"),
        ("--runer=FlinkRunner", "--runner?"),
    ],
)
def test_unknown_options(flag, near):
    with pytest.raises(InputError) as caught:
        pipeline_options([flag], 1)
    assert caught.value.expected == near


def test_a_word_that_is_no_option():
    with pytest.raises(InputError, match="not known"):
        pipeline_options(["blend.mode=max"], 1)
