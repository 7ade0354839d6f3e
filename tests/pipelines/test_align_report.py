import re

import pytest
from running import align
from stacks import make_stack, write_stack

from warpbeam.pipelines import report
from warpbeam.pipelines.report.reading import read_run
from warpbeam.pipelines.report.stack import rows
from warpbeam.pipelines.report.stack_verdict import judge_stack


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    write_stack(folder / "in", make_stack(5), blank=(2,))
    align(folder / "in", folder / "out")
    return folder / "out"


def test_every_part_is_drawn(output):
    page = output.joinpath(report.write(output)).read_text()
    for title in ("Sections", "Before and after", "Flow", "Deformation"):
        assert f">{title}<" in page
    assert "could not be drawn" not in page
    assert len(re.findall("data:image/png", page)) >= 6


def test_sections_that_need_a_look_are_named(output):
    page = output.joinpath(report.write(output)).read_text()
    assert "sec_002.tif" in page
    assert "bridged" in page
    verdict = judge_stack(read_run(output))
    assert verdict.level == "look"
    assert "1 section could not be aligned by their own flow: 2." in verdict.sentences


def test_the_table_has_a_row_per_section(output):
    table = rows(read_run(output))
    assert [row["section"] for row in table] == list(range(5))
    assert table[2]["known"] == 0
    assert all(row["known"] > 0.5 for row in table[3:])


def test_a_range_that_hardly_fits_is_told(output):
    run = read_run(output)
    run.numbers["held_step_px"] = 0.9
    assert "moved apart" not in " ".join(judge_stack(run).sentences)
    run.numbers["held_step_px"] = 3.14
    assert "moved apart by up to 3.1 px" in " ".join(judge_stack(run).sentences)
