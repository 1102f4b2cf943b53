"""`vaezoo.runtime`: an export on numpy arrays, without torch."""

import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import vaezoo
from vaezoo import export_onnx
from vaezoo.errors import InputError, VaezooError


@pytest.fixture(scope="module")
def model(exported):
    return vaezoo.runtime.load(exported.path)


def test_results_match_the_run(model, trained):
    x = trained.examples.x
    with torch.no_grad():
        posterior, images = trained.vae.encode(x), trained.vae.reconstruct(x)
    fields = model.encode(x.numpy())
    assert list(fields) == ["mu", "logvar"]
    np.testing.assert_allclose(fields["logvar"], posterior.logvar, atol=1e-5, rtol=1e-4)
    np.testing.assert_allclose(model.reconstruct(x.numpy()), images, atol=1e-5, rtol=1e-4)
    np.testing.assert_array_equal(model.decode(fields["mu"]), model.reconstruct(x.numpy()))


def test_samples_are_decoded_normal_latents(model):
    a, b, other = model.sample(5, seed=1), model.sample(5, seed=1), model.sample(5, seed=2)
    assert a.shape == (5, 1, 28, 28) and a.dtype == np.float32 and 0 <= a.min() <= a.max() <= 1
    assert (a == b).all() and (a != other).any()
    z = np.random.default_rng(1).standard_normal((5, 16), dtype=np.float32)
    np.testing.assert_array_equal(a, model.decode(z))


def test_chunks_keep_their_order(model):
    z = np.random.default_rng(0).standard_normal((600, 16), dtype=np.float32)
    np.testing.assert_allclose(model.decode(z)[550:], model.decode(z[550:]), atol=1e-6)


def test_any_float_array_is_accepted(model, trained):
    x = trained.examples.x.numpy()
    np.testing.assert_array_equal(model.reconstruct(x.astype(np.float64)), model.reconstruct(x))
    np.testing.assert_array_equal(model.reconstruct(x[:, :, ::1, ::-1][:, :, :, ::-1]), model.reconstruct(x))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: m.encode(np.zeros((2, 28, 28), np.float32)), "x has shape (2, 28, 28)"),
        (lambda m: m.encode(np.zeros((2, 1, 0, 28), np.float32)), "x has shape (2, 1, 0, 28)"),
        (lambda m: m.encode(np.zeros((2, 1, 28, 28), np.uint8)), "accepts floats in [0, 1], not uint8"),
        (lambda m: m.encode(np.full((2, 1, 28, 28), 255.0)), "values from 255 to 255"),
        (lambda m: m.encode(np.full((2, 1, 28, 28), np.nan)), "x holds NaN or infinite values"),
        (lambda m: m.decode(np.full((2, 16), np.nan)), "z holds NaN or infinite values"),
        (lambda m: m.decode(np.full((2, 16), 1e300)), "z holds NaN or infinite values"),
        (lambda m: m.run("decoder", {"z": np.full((2, 16), -np.inf)}), "z holds NaN or infinite values"),
        (lambda m: m.decode([[0.0] * 16, [0.0]]), "z is not an array"),
        (lambda m: m.decode([["a"] * 16]), "z holds <U1, not numbers"),
        (lambda m: m.run("prior", {}), "has no graph 'prior': it has encoder, decoder"),
        (lambda m: m.decode(np.zeros(16, np.float32)), "z has shape (16,)"),
        (lambda m: m.sample(0), "n is 0"),
        (lambda m: m.sample("4"), "n is '4', not a whole number"),
        (lambda m: m.sample(2.5), "n is 2.5, not a whole number"),
        (lambda m: m.sample(True), "n is True, not a whole number"),
        (lambda m: m.sample(2, seed=-1), "seed is -1"),
        (lambda m: m.sample(2, seed=None), "seed is None, not a whole number"),
        (lambda m: m.sample(2, seed=2**64), "seed is 18446744073709551616"),
        (lambda m: m.sample(2, y=[0, 1]), "take no labels"),
        (lambda m: m.decode(np.zeros((2, 16)), np.zeros(2, int)), "take no labels"),
    ],
)
def test_wrong_arrays_are_refused(model, call, words):
    with pytest.raises(VaezooError) as e:
        call(model)
    assert words in e.value.message and e.value.hint


def test_integers_of_numpy_are_counts(model):
    np.testing.assert_array_equal(model.sample(np.int64(2), seed=np.uint8(3)), model.sample(2, seed=3))


@pytest.mark.parametrize(
    ("folder", "options", "words"),
    [
        (None, {}, "None is not the path of an export"),
        ("", {"threads": "a"}, "threads is 'a', not a whole number"),
        ("", {"threads": 0}, "threads is 0"),
        ("", {"provider": ["cpu"]}, "unknown provider"),
    ],
)
def test_wrong_arguments_of_load_are_refused(exported, folder, options, words):
    with pytest.raises(VaezooError) as e:
        vaezoo.runtime.load(exported.path if folder == "" else folder, **options)
    assert words in e.value.message and e.value.hint


def test_no_rows_give_no_rows(model):
    fields = model.encode(np.zeros((0, 1, 28, 28), np.float32))
    assert {name: array.shape for name, array in fields.items()} == {"mu": (0, 16), "logvar": (0, 16)}
    assert model.decode(fields["mu"]).shape == (0, 1, 28, 28)
    assert model.reconstruct(np.zeros((0, 1, 28, 28))).shape == (0, 1, 28, 28)
    assert model.decode(fields["mu"]).dtype == np.float32


@pytest.mark.parametrize("missing", ["encoder", "decoder"])
def test_one_file_is_enough(export_copy, model, missing):
    (export_copy / f"{missing}.onnx").unlink()
    alone = vaezoo.runtime.load(export_copy)
    assert (alone.shape, alone.latent_shape, alone.outputs) == (model.shape, model.latent_shape, model.outputs)
    z = np.zeros((2, 16), np.float32)
    calls = {
        "encoder": [lambda m: m.encode(model.decode(z))["mu"]],
        "decoder": [lambda m: m.decode(z), lambda m: m.sample(2, seed=1)],
    }
    for call in [*calls.pop(missing), lambda m: m.reconstruct(model.decode(z))]:
        with pytest.raises(InputError, match=rf"{missing}.onnx is missing, and this needs it"):
            call(alone)
    for call in next(iter(calls.values())):
        np.testing.assert_array_equal(call(alone), call(model))


def test_a_part_says_what_it_lacks(trained, tmp_path):
    alone = vaezoo.runtime.load(export_onnx(trained, tmp_path / "out", parts=["decoder"], uint8=True).path)
    assert (alone.shape, alone.dtype, alone.outputs) == ((28, 28, 1), np.uint8, ())
    assert alone.sample(2).shape == (2, 28, 28, 1)
    with pytest.raises(VaezooError, match="has no graph 'encoder': it has decoder") as e:
        alone.encode(alone.sample(2))
    assert e.value.hint == "export the run without --parts"


def test_copies_in_other_processes(exported, model, monkeypatch):
    monkeypatch.chdir(exported.path.parent)
    relative = vaezoo.runtime.load(exported.path.name, threads=1)
    monkeypatch.chdir("/")
    data = pickle.dumps(relative)
    assert len(data) < 1000  # it holds no weights and no code of ours
    copy = pickle.loads(data)
    assert copy.source == relative.source and copy.source.threads == 1
    np.testing.assert_array_equal(copy.sample(3, seed=2), model.sample(3, seed=2))


def test_threads_share_a_model(model):
    batches = [np.random.default_rng(seed).standard_normal((5, 16), dtype=np.float32) for seed in range(16)]
    with ThreadPoolExecutor(4) as pool:
        for z, images in zip(batches, pool.map(model.decode, batches), strict=True):
            np.testing.assert_allclose(images, model.decode(z), atol=1e-6)


def test_uint8_encoder_refuses_floats(shared_export):
    model = vaezoo.runtime.load(shared_export(uint8=True).path)
    with pytest.raises(VaezooError, match="accepts uint8 images, not float32"):
        model.encode(np.zeros((2, 28, 28, 1), np.float32))


def test_custom_prior_is_not_sampled(trained, tmp_path):
    class Own(type(trained.vae.prior)):
        def sample(self, n, *given):
            return 2 * super().sample(n)

    trained.vae.prior.__class__, before = Own, type(trained.vae.prior)
    try:
        exported = export_onnx(trained, tmp_path / "out")
    finally:
        trained.vae.prior.__class__ = before
    model = vaezoo.runtime.load(exported.path)
    with pytest.raises(VaezooError, match="a custom prior"):
        model.sample(3)
    assert "draw z from the model's prior" in (exported.path / "README.md").read_text()
    assert model.decode(np.zeros((1, 16), np.float32)).shape == (1, 1, 28, 28)


def test_damaged_export_is_refused(export_copy, shared_export, tmp_path):
    other = shutil.copytree(shared_export(opset=20).path, tmp_path / "other")
    (export_copy / "decoder.onnx").write_bytes(b"\0" * (export_copy / "decoder.onnx").stat().st_size)
    with pytest.raises(InputError, match="SHA-256 differs"):
        vaezoo.runtime.load(export_copy)
    # The manifest lists the files of the other export, and only the decoder is the other's.
    manifest = (export_copy / "manifest.json").read_text().split('"files"')[0]
    files = (other / "manifest.json").read_text().split('"files"')[1]
    shutil.copy(other / "decoder.onnx", export_copy / "decoder.onnx")
    (export_copy / "manifest.json").write_text(manifest + '"files"' + files)
    with pytest.raises(InputError, match=r"encoder.onnx has \d+ bytes|SHA-256 differs"):
        vaezoo.runtime.load(export_copy)
    with pytest.raises(InputError, match="is not an export"):
        vaezoo.runtime.load(tmp_path)


def test_runtime_needs_only_onnxruntime(exported):
    code = (
        "import sys; sys.modules.update(torch=None, onnx=None, PIL=None, rich=None)\n"
        "import vaezoo.runtime, vaezoo\n"
        "model = vaezoo.runtime.load(sys.argv[1])\n"
        "assert model.reconstruct(model.sample(3)).shape == (3, 1, 28, 28)\n"
        "assert vaezoo.runtime.load is model.__class__.__init__.__globals__['load']"
    )
    subprocess.run([sys.executable, "-c", code, exported.path], check=True)
