"""Plots of series: bands, lines, and each kind of plot."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vaezoo
from vaezoo import TrainConfig
from vaezoo.plots import series
from vaezoo.plots.loaded_model import from_run
from vaezoo.plots.request import PlotRequest
from vaezoo.plots.thumbnails import HEIGHT, WIDTH, thumbnails


@pytest.fixture(scope="module")
def sines(tmp_path_factory):
    """A short run on series, with two latent dimensions."""
    rng = np.random.default_rng(0)
    x = 40 + 5 * np.sin(np.arange(16) + rng.uniform(0, 6, (80, 2, 1)))
    folder = tmp_path_factory.mktemp("sines")
    np.savez(folder / "x.npz", x=x, y=np.arange(80) % 2)
    data = vaezoo.load_data(folder / "x.npz", kind="series")
    config = TrainConfig(steps=10, batch_size=20, device="cpu")
    return vaezoo.train("mlp-vae", data, options={"latent_dim": 2, "hidden": "8"}, config=config, out=folder / "run")


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("samples", ("-n", 5)),
        ("reconstructions", ("-n", 3)),
        ("traversals", ("-n", 3)),
        ("interpolation", ("-n", 2)),
        ("manifold", ("-n", 3)),
        ("attribute-vector", ("-n", 2, "--label", 1)),
        ("latents", ()),
    ],
)
def test_each_kind_is_drawn(kind, arguments, sines, run_ok, inside):
    run_ok("plot", sines.path, "--kind", kind, *arguments, "--out", "p.png")
    with Image.open("p.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    assert (pixels.min(2) < 128).any() and (pixels != pixels[..., :1]).any()  # lines, in colours


def test_traversals_are_animated(sines, run_ok, inside):
    run_ok("plot", sines.path, "--kind", "traversals", "-n", 3, "--out", "p.gif")
    with Image.open("p.gif") as image:
        assert image.n_frames == 48


def test_lines_follow_values():
    """Values that rise go up, and all series share one scale."""
    x = np.zeros((2, 1, 10))
    x[0, 0] = np.arange(10)
    rising, flat = thumbnails(x).min(3).astype(int)
    assert rising.shape == (HEIGHT, WIDTH)
    heights = [int(np.argmin(rising[:, column])) for column in range(5, WIDTH - 5, 10)]
    assert heights == sorted(heights, reverse=True) and heights[0] > HEIGHT - 10 and heights[-1] < 10
    rows = np.flatnonzero((flat < 200).any(1))
    assert rows.min() > HEIGHT - 8  # zero is the lowest value of both
    assert (thumbnails(np.ones((1, 1, 4))).min(3)[0][HEIGHT // 2 - 2 : HEIGHT // 2 + 2] < 200).any()


def test_images_stay_as_they_are():
    x = np.random.default_rng(0).random((3, 1, 8, 8))
    assert np.array_equal(thumbnails(x), np.rint(x * 255).astype(np.uint8).transpose(0, 2, 3, 1))


def test_band_is_the_deviation_of_draws():
    """Against a normal distribution, whose mean and deviation are known."""
    mean, sigma = np.arange(6.0).reshape(1, 2, 3), np.array([[[0.1], [2.0]]])

    def decode(seed, *, draw):
        noise = np.random.default_rng(seed).standard_normal((1, 2, 3)) if draw else 0
        yield mean + sigma * noise

    curves = series.spread(decode, 0)
    assert np.array_equal(curves.mean, mean)
    assert curves.deviation == pytest.approx(np.broadcast_to(sigma, (1, 2, 3)), rel=0.4)


def test_bands_are_in_the_units_of_the_data(sines):
    """The likelihood has one sigma, in units of x, and so the band has sigma times the factor of each channel."""
    request = PlotRequest(model=from_run(sines), load_examples=lambda: vaezoo.load_examples(sines), count=4)
    seen = []
    original = series.chart
    series.chart = lambda model, curves, what: seen.append(curves)
    try:
        series.samples(request, None)
        series.reconstructions(request)
    finally:
        series.chart = original
    sigma = float(sines.vae.likelihood.log_sigma.exp()) * np.array(sines.data.factor)
    for curves in seen:
        assert 30 < curves.mean.mean() < 50
        assert curves.deviation.mean((0, 2)) == pytest.approx(sigma, rel=0.1)
    given = seen[1].given
    assert given.mean() == pytest.approx(40, abs=2) and given.shape == (4, 2, 16)


def test_scores_have_no_band(sines):
    def decode(seed, *, draw):
        if draw:
            raise vaezoo.VaezooError("likelihood 'log-cosh' is a score", "leave out --draw")
        yield np.zeros((1, 1, 3))

    assert series.spread(decode, 0).deviation is None


def test_charts_have_room_for_few(sines, run, inside):
    code, _, err = run("plot", sines.path, "--kind", "samples", "-n", 65)
    assert code == 2 and "-n 65 is too large for charts of series" in err
    assert not list(Path().glob("*.png"))


@pytest.mark.slow
def test_exports_are_drawn(sines, run_ok, inside):
    """The sigma of the likelihood is not in the export, so there is no band."""
    run_ok("export", sines.path, "--onnx", "--out", "e")
    for kind in ("samples", "reconstructions"):
        extra = ("--data", sines.source.data) if kind == "reconstructions" else ()
        run_ok("plot", "e", "--kind", kind, "-n", 4, *extra, "--out", f"{kind}.png")
        assert Path(f"{kind}.png").stat().st_size > 1000
