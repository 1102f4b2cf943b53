"""The decoder of coordinates: its arithmetic, images of any resolution, and its whole path."""

import numpy as np
import pytest
import torch
from PIL import Image

from vaezoo import DataSpec, TrainConfig, UnsupportedDataError, VaezooError, export_onnx, runtime, train, verify_onnx
from vaezoo.core.coordinates import parse_resolution, pixel_coordinates
from vaezoo.core.options import configure
from vaezoo.data.base import Batch
from vaezoo.evaluation import outputs
from vaezoo.models.cppn_vae import SPEC
from vaezoo.nn import cppn
from vaezoo.runtime import image_sizes
from vaezoo.testing.export import open_runtime
from vaezoo.vae import eval_mode

SMALL = {"hidden": "16", "latent_dim": 3, "units": 8, "layers": 3}


def build(shape=(1, 10, 14), options=SMALL, **data):
    torch.manual_seed(0)
    return SPEC.build(configure(SPEC.config, options), DataSpec(name="x", shape=shape, **data)).eval()


def latents(n=2, seed=1):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))


def test_coordinates_of_pixels():
    """x and y are those of the middles of the pixels, between the borders of the image at -1 and 1."""
    x, y, radius = pixel_coordinates(2, 4)
    np.testing.assert_allclose(x, [[-0.75, -0.25, 0.25, 0.75]] * 2)
    np.testing.assert_allclose(y, [[-0.5] * 4, [0.5] * 4])
    np.testing.assert_allclose(radius, np.sqrt(x**2 + y**2), rtol=1e-6)


@pytest.mark.parametrize(
    ("wave", "function"),
    [("tanh", np.tanh), ("sine", np.sin), ("gaussian", lambda x: np.exp(-(x**2)))],
)
def test_decoder_equals_reference(wave, function):
    """Each pixel is a dense network of z and of the pixel's x, y and radius."""
    vae = build((2, 5, 4), {**SMALL, "wave": wave, "frequency": 2.5})
    z = latents()
    with torch.no_grad():
        params = vae.decode(z).numpy()
    first, *layers = [layer for layer in vae.decoder if not isinstance(layer, tuple(cppn.WAVES.values()))]
    assert len(layers) == SMALL["layers"]  # two more of the hidden units, and the output
    dense = first.from_z[-1]
    for row, column in ((0, 0), (2, 3), (4, 1)):
        x, y = (column + 0.5) / 4 * 2 - 1, (row + 0.5) / 5 * 2 - 1
        place = 2.5 * np.array([x, y, np.hypot(x, y)])
        weight = first.from_place.weight.detach().numpy()[:, :, 0, 0]
        values = z.numpy() @ dense.weight.detach().numpy().T + dense.bias.detach().numpy() + weight @ place
        for layer in layers:
            values = function(values) @ layer.weight.detach().numpy()[:, :, 0, 0].T + layer.bias.detach().numpy()
        np.testing.assert_allclose(params[:, :, row, column], values, rtol=1e-4, atol=1e-5)


def test_resolutions_show_the_same():
    """At three times the resolution, the middle of each 3x3 block is the pixel of the data's resolution."""
    vae, z = build(), latents()
    with torch.no_grad():
        plain = vae.decode(z)
        with cppn.at_resolution(vae, (30, 42)):
            fine = vae.decode(z)
        assert fine.shape == (2, 1, 30, 42)
        torch.testing.assert_close(fine[:, :, 1::3, 1::3], plain, rtol=0, atol=1e-5)
        torch.testing.assert_close(vae.decode(z), plain, rtol=0, atol=0)  # only inside the block


@pytest.mark.parametrize("pixels", [1, 50, 3000])
def test_parts_equal_the_whole(pixels, monkeypatch):
    """Large images are decoded some rows at a time, and some images at a time, without a seam."""
    vae, z = build(), latents(5)
    grid = torch.from_numpy(pixel_coordinates(31, 45)).expand(5, -1, -1, -1)
    with torch.no_grad():
        whole = vae.decode_at(z, grid)
        expected = torch.sigmoid(whole).numpy()
        monkeypatch.setattr(cppn, "CHUNK_PIXELS", pixels)
        monkeypatch.setattr(image_sizes, "CHUNK_PIXELS", pixels)
        with cppn.at_resolution(vae, (31, 45)):
            torch.testing.assert_close(vae.decode(z), whole, rtol=0, atol=1e-5)
        with eval_mode(vae):
            np.testing.assert_allclose(open_runtime(vae).decode(z.numpy(), resolution=(31, 45)), expected, atol=1e-5)


def test_the_samples_are_those_of_any_resolution():
    vae = build()
    fine = outputs.sample(vae, 7, seed=3, resolution="30x42")
    np.testing.assert_allclose(fine[:, :, 1::3, 1::3], outputs.sample(vae, 7, seed=3), atol=1e-6)
    x = torch.rand(4, 1, 10, 14).numpy()
    again = outputs.reconstruct(vae, x, resolution=(30, 42))
    np.testing.assert_allclose(again[:, :, 1::3, 1::3], outputs.reconstruct(vae, x), atol=1e-6)
    drawn = outputs.sample(vae, 7, seed=3, resolution=(30, 42), draw=True)
    assert drawn.shape == fine.shape and set(np.unique(drawn)) == {0, 1}


def test_labels_are_given_at_each_resolution():
    vae = build(options={**SMALL, "condition": "labels"}, classes=(4,))
    y = np.array([0, 1, 2, 3, 3])
    fine = outputs.sample(vae, 5, y=y, resolution=(30, 42))
    np.testing.assert_allclose(fine[:, :, 1::3, 1::3], outputs.sample(vae, 5, y=y), atol=1e-6)
    with eval_mode(vae):
        model = open_runtime(vae)
        z = latents(5).numpy()
        fine = model.decode(z, y, resolution=(30, 42))
        np.testing.assert_allclose(fine[:, :, 1::3, 1::3], model.decode(z, y), atol=1e-5)
        with pytest.raises(VaezooError, match="different numbers of rows"):
            model.decode(z, y[:2], resolution=100)


def test_decoder_starts_at_mean():
    from vaezoo.data.base import TensorSplit

    vae = build((3, 6, 6))
    x = torch.rand(50, 3, 6, 6) * torch.tensor([0.1, 0.5, 0.9]).view(3, 1, 1)
    vae.init_from_data(TensorSplit(x, None))
    torch.testing.assert_close(vae.decoder[-1].bias.detach(), torch.logit(x.mean((0, 2, 3))), rtol=1e-4, atol=1e-4)


def test_gradient_reaches_every_parameter():
    vae = build().train()
    objective = SPEC.objective(SPEC.config, vae.data)
    from vaezoo.objectives.base import StepContext

    loss = objective(vae, Batch(torch.rand(3, 1, 10, 14)), StepContext.initial()).losses["vae"]
    gradients = torch.autograd.grad(loss, list(vae.parameters()))
    assert all(gradient.abs().max() > 0 for gradient in gradients)


@pytest.mark.parametrize("text", ["", "0", "a", "10x", "10x20x30", "99999", (1,), None, 2.5, (3, 0), [1, "2"]])
def test_wrong_resolutions_are_refused(text):
    with pytest.raises(VaezooError) as e:
        parse_resolution(text)
    assert e.value.hint


def test_resolutions():
    assert parse_resolution(8) == parse_resolution("8") == parse_resolution("8x8") == parse_resolution((8, 8)) == (8, 8)
    assert parse_resolution("24x32") == parse_resolution(np.array([24, 32]).tolist()) == (24, 32)


@pytest.mark.parametrize(
    "options", [{"units": 0}, {"layers": 0}, {"frequency": 0}, {"frequency": -1}, {"wave": "relu"}, {"hidden": "0"}]
)
def test_invalid_options_are_refused(options):
    with pytest.raises(VaezooError) as e:
        configure(SPEC.config, options)
    assert e.value.hint


@pytest.mark.parametrize(
    "data",
    [
        {"shape": (9,)},
        {"shape": (2, 9)},
        {"shape": (1, 4, 4), "kind": "tokens", "vocabulary": 3, "likelihood": "categorical"},
    ],
)
def test_other_data_are_refused(data):
    with pytest.raises(UnsupportedDataError):
        build(**data)


def test_other_models_have_one_resolution(trained, exported):
    with pytest.raises(VaezooError, match="takes no coordinates") as e:
        outputs.sample(trained, 2, resolution=56)
    assert e.value.hint
    for call in (
        lambda: outputs.reconstruct(trained, trained.examples.x[:2].numpy(), resolution=56),
        lambda: outputs.decode(trained, np.zeros((2, 16), np.float32), resolution=56),
        lambda: runtime.load(exported.path).sample(2, resolution=56),
        lambda: outputs.sample(runtime.load(exported.path), 2, resolution=56),
    ):
        with pytest.raises(VaezooError, match="takes no coordinates"):
            call()


@pytest.fixture(scope="module")
def run(digits, tmp_path_factory):
    config = TrainConfig(steps=6, batch_size=20)
    return train("cppn-vae", digits, options=SMALL, config=config, out=tmp_path_factory.mktemp("cppn") / "run")


@pytest.mark.slow
@pytest.mark.parametrize("uint8", [False, True])
def test_export_takes_coordinates(run, tmp_path, uint8):
    result = export_onnx(run, tmp_path / "export", uint8=uint8)
    assert verify_onnx(result.path).parity
    z, coordinates = result.manifest["graphs"]["decoder"]["inputs"]
    assert coordinates["name"] == "coordinates" and coordinates["shape"][:2] == ["batch", 3]
    assert all(isinstance(size, str) for size in coordinates["shape"][2:])
    assert "another size" in {row["inputs"] for row in result.manifest["parity"]["rows"]}
    model = runtime.load(result.path)
    fine = model.sample(3, seed=1, resolution=(84, 56))
    assert fine.shape == ((3, 84, 56, 1) if uint8 else (3, 1, 84, 56))
    z = np.random.default_rng(1).standard_normal((3, 3), dtype=np.float32)
    expected = outputs.decode(run, z, resolution=(84, 56))
    if uint8:
        fine = fine.transpose(0, 3, 1, 2) / 255.0
    np.testing.assert_allclose(fine, expected, atol=3e-3 if uint8 else 1e-5)
    assert model.sample(2).shape == ((2, 28, 28, 1) if uint8 else (2, 1, 28, 28))
    x = run.examples.x[:2]
    array = (x * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy() if uint8 else x.numpy()
    assert model.reconstruct(array, resolution=100).shape == ((2, 100, 100, 1) if uint8 else (2, 1, 100, 100))


@pytest.mark.slow
def test_commands_draw_at_a_resolution(run, tmp_path, capsys):
    from vaezoo_cli.main import main

    for command, count, size in (("sample", 4, (114, 114)), ("reconstruct", 2, (114, 114))):
        out = tmp_path / f"{command}.png"
        with pytest.raises(SystemExit) as e:
            main([command, str(run.path), "-n", str(count), "--resolution", "56", "--out", str(out)])
        assert e.value.code == 0, capsys.readouterr().err
        width, height = Image.open(out).size
        assert width >= 2 * 56 and height >= 2 * 56 and (width, height) <= (size[0] + 20, size[1] + 20)
    with pytest.raises(SystemExit) as e:
        main(["sample", str(run.path), "--resolution", "much"])
    assert e.value.code != 0 and "resolution much is not known" in capsys.readouterr().err


@pytest.mark.slow
def test_plots_at_a_resolution(run, tmp_path):
    from vaezoo.core.image_grids import image_grid

    for kind, columns, rows in (("samples", 2, 2), ("reconstructions", 3, 4), ("interpolation", 11, 4)):
        (path,) = run.plot(kind, tmp_path / f"{kind}.png", count=4, resolution=(70, 80))
        plain = image_grid(np.zeros((columns * rows, 70, 80, 1), np.uint8), columns)
        width, height = Image.open(path).size
        assert plain.width <= width <= plain.width + 40 and plain.height <= height <= plain.height + 60, kind
    with pytest.raises(VaezooError, match="resolution has no effect on traversals"):
        run.plot("traversals", resolution=70)
