import numpy as np
import pytest
import tifffile

from warpbeam.kernels.flow.exclude import Exclusion
from warpbeam.transforms.align.cut import find_cut, load_cuts, store_cut
from warpbeam.transforms.align.frame import FrameSettings, cut_uri, frame_of
from warpbeam.transforms.align.reading import SectionReader, SectionSettings
from warpbeam.transforms.storage import fields
from warpbeam.transforms.storage.run_folder import RunFolder
from warpbeam.transforms.storage.tiles.sections import read_sections
from warpbeam.transforms.tiles import PlacedTile, as_rows, sources_of

RULES = (Exclusion(0, (1,)), Exclusion(0, (2,), cuts=True), Exclusion(0, (3,), cuts=True))
STRIDE = 8


@pytest.fixture
def section(tmp_path):
    """Labels: dirt (1), a crack (2) that leaves the section, a small hole (3)."""
    labels = np.zeros((90, 120), np.uint8)
    labels[10:40, 10:40] = 1
    for y in range(90):
        labels[y, 50 + y // 3 : 58 + y // 3] = 2
    labels[60:64, 20:24] = 3
    tifffile.imwrite(tmp_path / "s1.tif", labels)
    tifffile.imwrite(tmp_path / "s2.tif", labels)
    (source, _) = sources_of(read_sections(str(tmp_path)), direct=True)
    return RunFolder(str(tmp_path / "run")), source, labels


@pytest.mark.parametrize("block", [3, 100])
@pytest.mark.parametrize("degrees", [0.0, 25.0])
def test_nodes_in_cracks_are_found_by_looking_around_each(section, degrees, block):
    run, source, labels = section
    a = np.deg2rad(degrees)
    matrix = np.array([[np.cos(a), -np.sin(a), 5.0], [np.sin(a), np.cos(a), -7.0], [0, 0, 1]])
    placed = PlacedTile(source, as_rows(matrix))
    frame = frame_of([placed], FrameSettings(STRIDE, block, (1,), (1,)))
    found = find_cut(SectionReader(run, SectionSettings(0, RULES)), frame, placed)
    world = frame.lattice.nodes().reshape(2, -1)
    at = (np.linalg.inv(matrix) @ [*world, np.ones(world.shape[1])])[:2].T
    sure = []
    nearest = np.clip(at, 0, np.array(labels.shape) - 1)  # of a node beside the section
    for (y, x), cut in zip(np.rint(nearest).astype(int), found.ravel(), strict=True):
        window = np.pad(labels, 4, mode="edge")[y : y + 8, x : x + 8]
        share = np.isin(window, (2, 3)).mean()
        if abs(share - 0.25) > 0.1:  # a pixel's rounding
            sure.append(cut)
            assert cut == (share > 0.25)
    assert 10 < sum(sure) < len(sure) / 3


def test_without_such_a_rule_nothing_is_cut(section):
    run, source, _ = section
    placed = PlacedTile(source, source.stage)
    frame = frame_of([placed], FrameSettings(STRIDE, 100, (1,), (1,)))
    assert not find_cut(SectionReader(run, SectionSettings(0, RULES[:1])), frame, placed).any()


def test_cut_nodes_are_kept(section):
    run, source, _ = section
    frame = frame_of([PlacedTile(source, source.stage)], FrameSettings(STRIDE, 100, (1,), (1,)))
    shape = frame.lattice.shape
    fields.create(cut_uri(run), (frame.depth, *shape), (1, *shape))
    assert load_cuts(run, frame, [frame.first]) == {}
    found = np.zeros(shape, bool)
    found[2, 3:5] = True
    store_cut(run, frame, frame.first, found)
    loaded = load_cuts(run, frame, [frame.first])
    np.testing.assert_array_equal(loaded[frame.first], found)
