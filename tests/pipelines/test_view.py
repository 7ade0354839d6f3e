import json
import re
import shutil
import subprocess
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import urlopen

import cv2
import numpy as np
import pytest

from warpbeam.kernels.geometry.box import Box
from warpbeam.pipelines.neuroglancer import window
from warpbeam.pipelines.view import parse_range, run, serve, serving, state
from warpbeam.transforms.storage.describe import describe
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.ngff import set_window
from warpbeam.transforms.storage.volume import VolumeSpec, create

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def make(place, format="zarr3", **changed):
    """A bright square on a gradient, three planes that differ."""
    shape = (1, 1, 3, 64, 96)
    array = np.zeros(shape, np.uint16)
    array[0, 0] = np.arange(3)[:, None, None] * 1000 + np.arange(96)
    array[0, 0, :, 20:40, 30:60] += 10000
    settings = {
        "uri": str(place),
        "shape": shape,
        "dtype": "uint16",
        "chunk": (1, 1, 1, 16, 16),
        "shard": (1, 1, 1, 64, 64),
        "format": format,
        "voxel": (2.0, 0.5, 0.5),
        "unit": "micrometer",
        "origin": (0.0, 10.0, 0.0),
        "factors": ((1, 2, 2),),
    }
    spec = VolumeSpec(**(settings | changed))
    volume = create(spec)
    for index in volume.level(0).shard_grid.indices():
        box = volume.level(0).shard_grid.box(index)
        volume.write_with_levels(box, array[box.slices])
    return array


@pytest.fixture
def out(tmp_path):
    make(tmp_path / "out" / "volume.ome.zarr")
    (tmp_path / "out" / "report.html").write_text("<p>report</p>")
    (tmp_path / "secret.txt").write_text("secret")
    return tmp_path / "out"


def ask(page, path, method="GET", **headers):
    connection = HTTPConnection(urlsplit(page).netloc, timeout=10)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


def test_metadata_and_shards_come_with_cors(out):
    with serving(str(out), 0) as (page, _):
        answer, body = ask(page, "/volume.ome.zarr/zarr.json")
        assert answer.status == 200
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert json.loads(body)["attributes"]["ome"]["version"] == "0.5"
        shard = "/volume.ome.zarr/0/c/0/0/1/0/0"
        assert ask(page, shard)[1] == Path(f"{out}{shard}").read_bytes()


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ("bytes=0-9", slice(0, 10)),
        ("bytes=10-", slice(10, None)),
        ("bytes=-16", slice(-16, None)),
        ("bytes=5-1000000000", slice(5, None)),
        ("bytes=-1000000000", slice(None)),
    ],
)
def test_ranges(out, header, part):
    path = "/volume.ome.zarr/0/c/0/0/0/0/0"
    raw = Path(f"{out}{path}").read_bytes()
    with serving(str(out), 0) as (page, _):
        answer, body = ask(page, path, Range=header)
        start, stop, _ = part.indices(len(raw))
        assert answer.status == 206
        assert body == raw[part]
        assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(raw)}"
        head, nothing = ask(page, path, "HEAD", Range=header)
        assert nothing == b""
        assert head.headers["Content-Length"] == str(len(body))


def test_ranges_that_cannot_be_served(out):
    with serving(str(out), 0) as (page, _):
        path = "/volume.ome.zarr/0/c/0/0/0/0/0"
        size = Path(f"{out}{path}").stat().st_size
        answer, _ = ask(page, path, Range=f"bytes={size}-")
        assert answer.status == 416
        assert answer.headers["Content-Range"] == f"bytes */{size}"


def test_parse_range():
    assert parse_range(None, 10) == (0, 10)
    assert parse_range("bytes=9-9", 10) == (9, 10)
    for bad in ("bytes=-", "bytes=-0", "bytes=5-4", "items=0-1", "bytes=0-1,4-5"):
        assert parse_range(bad, 10) is None


def test_browsers_may_ask_before_reading_from_this_machine(out):
    with serving(str(out), 0) as (page, _):
        answer, _ = ask(page, "/volume.ome.zarr/zarr.json", "OPTIONS")
        assert answer.status == 204
        assert answer.headers["Access-Control-Allow-Private-Network"] == "true"
        assert "Range" in answer.headers["Access-Control-Allow-Headers"]


def test_only_the_asked_folder_is_served(out, tmp_path):
    (out / "link.txt").symlink_to(tmp_path / "secret.txt")
    with serving(str(out), 0) as (page, _):
        for path in ("/../secret.txt", "/%2e%2e/secret.txt", "/link.txt", "/volume.ome.zarr/"):
            assert ask(page, path)[0].status == 404
        assert ask(page, "/report.html")[0].status == 200
    with serving(str(out / "volume.ome.zarr"), 0) as (page, _):
        assert ask(page, "/volume.ome.zarr/zarr.json")[0].status == 200
        assert ask(page, "/report.html")[0].status == 404


def test_page_has_a_picture_per_scale_and_the_links(out):
    with serving(str(out), 0) as (page, viewer):
        text = urlopen(page).read().decode()
        pictures = re.findall(r'src="([^"]+\.png)"', text)
        assert len(pictures) == 2
        assert 'href="/report.html"' in text
        assert viewer.split("#!")[1] in text
        for picture, (height, width) in zip(pictures, [(64, 96), (32, 48)], strict=True):
            png = urlopen(page.rstrip("/") + picture).read()
            image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
            assert image.shape == (height, width)
            inside = image[height // 2, width // 2]
            assert inside > 240
            assert image[2, 2] < 10
        assert ask(page, "/.view/2.png")[0].status == 404


@pytest.mark.parametrize("format", ["zarr3", "zarr2", "n5", "precomputed"])
def test_state_names_source_place_and_contrast(tmp_path, format):
    make(tmp_path / "v.x", format)
    found = describe(str(tmp_path / "v.x"))
    shown = state(found, "http://127.0.0.1:1/v.x")
    driver = "zarr" if format.startswith("zarr") else format
    assert shown["layers"][0]["source"] == f"{driver}://http://127.0.0.1:1/v.x"
    assert shown["layers"][0]["type"] == "image"
    assert shown["dimensions"]["z"][0] == pytest.approx(2e-6)
    assert shown["dimensions"]["x"] == [pytest.approx(5e-7), "m"]
    position = dict(zip(shown["dimensions"], shown["position"], strict=True))
    assert position["z"] == 1.5
    assert position["x"] == 48.5
    # Ten voxels of origin, half of 64 voxels, and half a voxel to the centre.
    assert position["y"] == 42.5
    low, high = shown["layers"][0]["shaderControls"]["normalized"]["range"]
    assert isinstance(low, int)
    assert isinstance(high, int)
    assert 1000 <= low < 1010
    assert 11000 < high < 11100


def test_each_channel_is_a_layer_with_its_own_contrast(tmp_path):
    spec = VolumeSpec(
        str(tmp_path / "v.ome.zarr"), (1, 2, 2, 64, 64), "uint16", (1, 1, 1, 32, 32),
        (1, 1, 1, 64, 64), channels=("actin", "dapi"),
    )  # fmt: skip
    volume = create(spec)
    for channel, (dark, bright) in enumerate([(10, 200), (3000, 50000)]):
        values = np.linspace(dark, bright, 64 * 64).reshape(64, 64).astype(np.uint16)
        for z in range(2):
            box = Box((0, channel, z, 0, 0), (1, channel + 1, z + 1, 64, 64))
            volume.write_with_levels(box, values[None, None, None])
    place = str(tmp_path / "v.ome.zarr")
    layers = state(describe(place), "http://h/v.ome.zarr")["layers"]
    assert [layer["name"] for layer in layers] == ["actin", "dapi"]
    assert [layer["localPosition"] for layer in layers] == [[0], [1]]
    ranges = [layer["shaderControls"]["normalized"]["range"] for layer in layers]
    assert ranges[0] == [pytest.approx(10, abs=3), pytest.approx(200, abs=3)]
    assert ranges[1] == [pytest.approx(3000, abs=400), pytest.approx(50000, abs=400)]
    set_window(place, [(20, 100), (0, 65535)])  # all that the type holds says nothing
    again = state(describe(place), "http://h/v.ome.zarr")["layers"]
    assert again[0]["shaderControls"]["normalized"]["range"] == [20, 100]
    assert again[1]["shaderControls"]["normalized"]["range"] == ranges[1]
    colours = [re.search("#[0-9A-F]{6}", layer["shader"]).group() for layer in layers]
    assert len(set(colours)) == 2


def test_link_is_the_state(out):
    with serving(str(out), 0) as (page, viewer):
        address, _, fragment = viewer.partition("#!")
        decoded = json.loads(unquote(fragment))
        assert address.startswith("https://")
        assert decoded == state(describe(str(out)), f"{page}volume.ome.zarr")


def test_labels_are_shown_as_such(tmp_path):
    make(tmp_path / "v.x", method="mode")
    layer = state(describe(str(tmp_path / "v.x")), "http://h/v.x")["layers"][0]
    assert layer["type"] == "segmentation"
    assert "shaderControls" not in layer


def test_contrast_of_a_blank_volume_is_a_range(tmp_path):
    create(VolumeSpec(str(tmp_path), (1, 1, 1, 8, 8), "uint8", (1, 1, 1, 8, 8), (1, 1, 1, 8, 8)))
    low, high = window(describe(str(tmp_path)).levels[0])
    assert low < high


def test_what_cannot_be_served(tmp_path):
    with pytest.raises(InputError, match="nothing at this address"):
        serve(str(tmp_path / "none"), 0)
    spec = VolumeSpec("memory://view", (1, 1, 1, 8, 8), "uint8", (1, 1, 1, 8, 8), (1, 1, 1, 8, 8))
    create(spec)
    with pytest.raises(InputError, match="local folder"):
        serve(spec.uri, 0)


def test_a_port_in_use(out):
    first = serve(str(out), 0)
    try:
        with pytest.raises(InputError, match="port"):
            serve(str(out), first.server_address[1])
    finally:
        first.shutdown()
        first.server_close()


def test_ctrl_c_ends_serving_and_the_addresses_were_written(out, capsys, monkeypatch):
    def interrupt(_event):
        raise KeyboardInterrupt

    monkeypatch.setattr("warpbeam.pipelines.view.threading.Event.wait", interrupt)
    monkeypatch.setattr("warpbeam.pipelines.view.serve", lambda *_: Stopped())
    assert run(str(out), 0) == 0
    written = capsys.readouterr().out
    assert "http://127.0.0.1:7/" in written
    assert "neuroglancer-demo.appspot.com/#!" in written


class Stopped:
    """A server that does nothing, so that only `run` meets the interrupt."""

    server_address = ("127.0.0.1", 7)

    def shutdown(self):
        pass

    def server_close(self):
        pass


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")
def test_a_browser_shows_the_page_with_its_pictures(out, tmp_path):
    with serving(str(out), 0) as (page, _):
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=900,500"]
        shot = tmp_path / "page.png"
        subprocess.run(
            [CHROMIUM, *flags, f"--user-data-dir={tmp_path}/profile", f"--screenshot={shot}", page],
            check=True,
            timeout=60,
            capture_output=True,
        )
    image = cv2.imread(str(shot))
    # The picture's white square can only come from the served PNG: the page is light grey.
    assert (image.reshape(-1, 3) == 255).all(1).sum() > 20 * 30
    assert (image.reshape(-1, 3) < 8).all(1).sum() > 1000
