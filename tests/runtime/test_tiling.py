"""Tiles and padding: images larger than memory, and sides that a model does not divide."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import vaezoo
from vaezoo import VAE, DataSpec, DiagonalGaussian, create_model
from vaezoo.errors import UnsupportedDataError, VaezooError
from vaezoo.evaluation.full_size import reconstruct_files
from vaezoo.runtime.tiling import Layout, Tiling, make_tiling, nearest, pad_image, run_tiled, tile_axis
from vaezoo.testing.export import open_runtime

FACTOR = 4
REACH = 16  # pixels that a value of the networks below depends on, in each direction, at most


class ConvolutionalVAE(VAE):
    """Convolutions alone: a value depends on the pixels around it, and on nothing else."""

    def __init__(self, data: DataSpec) -> None:
        super().__init__(data, (2, data.shape[1] // FACTOR, data.shape[2] // FACTOR))
        self.down = nn.ModuleList([nn.Conv2d(1, 4, 3, 2, padding=1), nn.Conv2d(4, 4, 3, 2, padding=1)])
        self.up = nn.ModuleList([nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 1, 3, padding=1)])

    @property
    def shapes(self):
        _, height, width = self.data.shape
        return self.data.shape, (1, height + FACTOR, width + 3 * FACTOR)

    def encode(self, x):
        mu, logvar = self.down[1](torch.tanh(self.down[0](x))).chunk(2, 1)
        return DiagonalGaussian(mu, logvar)

    def decode(self, z):
        for layer in self.up:
            z = layer(F.interpolate(torch.tanh(z), scale_factor=2.0))
        return z


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return open_runtime(ConvolutionalVAE(DataSpec(name="x", shape=(1, 16, 16))).eval().requires_grad_(False))


def images(*sizes, n=2, seed=0):
    return np.random.default_rng(seed).random((n, 1, *sizes), np.float32)


@pytest.mark.parametrize("scale", [1, 8])
@pytest.mark.parametrize(
    ("cells", "tile", "overlap"),
    [(50, 16, 4), (16, 16, 4), (5, 16, 8), (8, 16, 8), (33, 8, 7), (31, 8, 0), (17, 16, 2)],
)
def test_weights_of_tiles_add_up_to_one(cells, tile, overlap, scale):
    axis = tile_axis(cells, tile, overlap, scale)
    hard = nearest(axis, cells, scale)
    for weights in (axis.weights, hard.weights):
        total = np.zeros(cells * scale)
        for start, weight in zip(axis.starts, weights, strict=True):
            total[start * scale : (start + axis.size) * scale] += weight
        np.testing.assert_allclose(total, 1, atol=1e-6)
    assert axis.starts[0] == 0 and axis.starts[-1] + axis.size == cells and (axis.weights >= 0).all()
    steps = np.diff(axis.starts)
    assert (steps > 0).all() and (axis.size - steps >= min(overlap, axis.size - 1)).all()


def test_outer_quarter_of_an_overlap_has_no_weight():
    """The pixels that a border of a tile changes have no weight. Between them the weights are a straight line."""
    weights = tile_axis(24, 16, 8, 2).weights
    np.testing.assert_allclose(weights[0], [1] * 20 + [1 - (i + 0.5) / 8 for i in range(8)] + [0] * 4, atol=1e-6)
    np.testing.assert_allclose(weights[1], weights[0][::-1], atol=1e-6)


def test_tiles_equal_the_whole(model):
    """A network that looks no further than a quarter of the overlap gives the same values everywhere."""
    x = images(200, 148)
    whole, seen = model.encode(x), []
    run = model.sessions["encoder"].run
    model.sessions["encoder"].run = lambda outputs, inputs: seen.append(inputs["x"].shape) or run(outputs, inputs)
    try:
        tiled = model.encode(x, tile=96, overlap=4 * REACH)
    finally:
        del model.sessions["encoder"].run
    assert {shape[0] for shape in seen} == {1} and {shape[2:] for shape in seen} == {(96, 96)}  # memory is bounded
    for name in ("mu", "logvar"):
        np.testing.assert_allclose(tiled[name], whole[name], atol=1e-6)
    z = whole["mu"]
    np.testing.assert_allclose(model.decode(z, tile=96, overlap=4 * REACH), model.decode(z), atol=1e-6)
    np.testing.assert_allclose(model.reconstruct(x, tile=96, overlap=4 * REACH), model.reconstruct(x), atol=1e-6)
    np.testing.assert_allclose(model.decode(z, tile=256), model.decode(z), atol=1e-6)  # one tile is the whole


def test_tiny_autoencoder_is_exact_in_tiles():
    """It has convolutions alone, unless it has `latent_norm`."""
    torch.manual_seed(0)
    data = DataSpec(name="x", shape=(3, 16, 16), likelihood="gaussian")
    vae = create_model("tiny-autoencoder", data, {"blocks": "1,1", "channels": 4}).eval().requires_grad_(False)
    model, x = open_runtime(vae), np.random.default_rng(0).random((1, 3, 130, 101), np.float32)
    whole = model.reconstruct(x, pad="edge")
    np.testing.assert_allclose(model.reconstruct(x, tile=96, overlap=64, pad="edge"), whole, atol=1e-5)


def test_too_small_an_overlap_is_seen(model):
    z = model.encode(images(96, 96))["mu"]
    assert np.abs(model.decode(z, tile=32, overlap=0) - model.decode(z)).max() > 1e-3


def test_bytes_and_codes():
    """Bytes are blended and rounded to the nearest level. A code is that of one tile, never a mean."""
    rng = np.random.default_rng(0)
    levels, codes = rng.integers(0, 256, (1, 24, 40, 3), np.uint8), rng.integers(0, 99, (1, 1, 12, 20))
    inputs = {"z": np.moveaxis(levels, 3, 1).astype(np.float32), "codes": codes}

    def run(tile):
        image = np.moveaxis(tile["z"], 1, 3).astype(np.uint8)
        return [image]

    images, tall = Layout((1, 2), (1, 1)), Layout((2, 3), (1, 1))
    (result,) = run_tiled(run, {"z": inputs["z"]}, "z", Tiling((8, 16), (4, 4)), tall, images)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, levels)
    (result,) = run_tiled(lambda tile: [tile["codes"]], {"codes": codes}, "codes", Tiling((6, 6), (2, 2)), tall, tall)
    assert result.dtype == codes.dtype
    np.testing.assert_array_equal(result, codes)


@pytest.mark.parametrize("pad", ["reflect", "edge"])
@pytest.mark.parametrize("size", [(17, 30), (16, 16), (3, 65)])
def test_padding_is_cropped_again(model, size, pad):
    x = images(*size)
    after = [-n % FACTOR for n in size]
    padded = np.pad(x, [(0, 0), (0, 0), (0, after[0]), (0, after[1])], mode=pad)
    np.testing.assert_array_equal(model.encode(x, pad=pad)["mu"], model.encode(padded)["mu"])
    again = model.reconstruct(x, pad=pad)
    assert again.shape == x.shape
    np.testing.assert_array_equal(again, model.reconstruct(padded)[:, :, : size[0], : size[1]])


def test_padding_and_tiles_together(model):
    x = images(131, 97)
    whole = model.reconstruct(x, pad="edge")
    np.testing.assert_allclose(model.reconstruct(x, pad="edge", tile=96, overlap=64), whole, atol=1e-6)


def test_no_rows_in_tiles(model):
    assert model.reconstruct(images(64, 64, n=0), tile=32, overlap=8).shape == (0, 1, 64, 64)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: m.encode(images(17, 16)), "x has height 17"),
        (lambda m: m.encode(images(17, 16), pad="mirror"), "unknown padding 'mirror'"),
        (lambda m: m.encode(images(17, 16), pad=["edge"]), "unknown padding"),
        (lambda m: m.encode(images(16, 16), tile=30), "tile is 30"),
        (lambda m: m.encode(images(16, 16), tile=0), "tile is 0"),
        (lambda m: m.encode(images(16, 16), tile="a"), "tile is 'a'"),
        (lambda m: m.encode(images(16, 16), tile=32, overlap=6), "overlap is 6"),
        (lambda m: m.encode(images(16, 16), tile=32, overlap=32), "tiles of 32 pixels overlap by 32"),
        (lambda m: m.decode(np.zeros((1, 2, 4, 4)), tile=32, overlap=-4), "overlap is -4"),
        (lambda m: m.decode(np.zeros((1, 2, 4, 4)), resolution=64), "takes no coordinates"),
    ],
)
def test_wrong_sizes_are_refused(model, call, words):
    with pytest.raises(VaezooError) as e:
        call(model)
    assert words in e.value.message and e.value.hint


def test_one_size_has_no_tiles(exported, trained):
    model = vaezoo.runtime.load(exported.path)
    x = trained.examples.x[:1].numpy()
    for call in (
        lambda: model.encode(x, tile=16, overlap=8),
        lambda: model.decode(model.encode(x)["mu"], tile=16),
        lambda: model.reconstruct(x, pad="edge"),
    ):
        with pytest.raises(VaezooError, match="inputs of one size only") as e:
            call()
        assert e.value.hint
    with pytest.raises(UnsupportedDataError, match="takes images of one size"):
        list(reconstruct_files(model, []))


def test_factors_of_pixels_and_cells():
    assert make_tiling(64, 16, (4, 8)) == Tiling((16, 8), (4, 2))
    padded = pad_image(np.ones((1, 5, 7, 3), np.uint8), (1, 2), (4, 4), "edge")
    assert padded.shape == (1, 8, 8, 3) and padded.min() == 1


@pytest.mark.slow
def test_normalised_networks_are_near_the_whole(free_size_export):
    """Group normalisation and attention see a tile and not the image, so the result is near and not equal."""
    rng = np.random.default_rng(1)
    x = np.repeat(np.repeat(rng.random((1, 3, 32, 24), np.float32), 4, 2), 4, 3)
    model = vaezoo.runtime.load(free_size_export)
    whole = model.reconstruct(x)
    tiled = model.reconstruct(x, tile=64, overlap=32)
    error = np.sqrt(((tiled - whole) ** 2).mean())
    assert 0 < error < 0.02 and np.abs(tiled - whole).max() < 0.1
