"""Imported folders against diffusers: its numbers, its names, and the way back."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from foreign import CASES, SIZES, images, latents, mode_of, sampled, weights_of, write_folder
from safetensors import safe_open
from safetensors.torch import load_file

import vaezoo
from vaezoo import VaezooError, export_diffusers, import_folder
from vaezoo.errors import VaezooWarning
from vaezoo.interop.formats import FORMATS

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())["cases"]
FILE, HALF = "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors"
CLOSE = {"rtol": 0, "atol": 1e-5}
with_diffusers = pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="needs diffusers")


def weights(case):
    return weights_of({name: tuple(shape) for name, shape in GOLDEN[case]["shapes"].items()})


@pytest.fixture
def folder(tmp_path):
    """Returns a function that writes a folder of a case, with some settings changed."""

    def write(case, name="vae", file=FILE, tensors=None, **changes):
        settings = {**GOLDEN[case]["config"], **changes}
        return write_folder(tmp_path / name, settings, weights(case) if tensors is None else tensors, file)

    return write


@torch.no_grad()
def outputs(vae, size):
    """Returns what the golden numbers hold, computed by a model."""
    posterior = vae.encode(images(size))
    values = {"mode": mode(posterior)}
    values["decoded"] = decode(vae, latents(tuple(values["mode"].shape[1:])))
    fields = {"logvar": "logvar", "codes": "z"} if hasattr(vae, "codebook") else {"logvar": "logvar"}
    return values | {name: getattr(posterior, field) for name, field in fields.items() if hasattr(posterior, field)}


def mode(posterior):
    """Returns what diffusers calls the latents. Those of a model with codes are not quantized yet."""
    return posterior.features if hasattr(posterior, "features") else posterior.mode()


def decode(vae, h):
    """Decodes such latents."""
    return vae.decode(vae.codebook.nearest(h) if hasattr(vae, "codebook") else h)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("case", CASES)
def test_models_equal_the_numbers_of_diffusers(case, size, folder, tmp_path):
    vae = import_folder(folder(case), tmp_path / "run").vae
    expected = GOLDEN[case]["outputs"][f"{size[0]}x{size[1]}"]
    actual = outputs(vae, size)
    assert actual.keys() == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(torch.tensor(sampled(actual[name])), torch.tensor(values), **CLOSE)
        assert max(map(abs, values)) > 0.1  # they say something


@pytest.mark.parametrize("case", CASES)
def test_run_holds_what_the_folder_says(case, folder, tmp_path):
    run = import_folder(folder(case, name="My VAE"), tmp_path / "run", image_size=(16, 24))
    settings = GOLDEN[case]["config"]
    assert run.data.shape == (3, 16, 24) and run.data.name == "my-vae" and run.data.kind == "unit"
    assert run.options["scaling_factor"] == settings["scaling_factor"] == run.vae.scaling_factor
    if "shift_factor" in settings:
        assert run.options["shift_factor"] == (settings["shift_factor"] or 0) == run.vae.shift_factor
    assert run.imported["class"] == settings["_class_name"] and run.imported["config"] == settings
    assert [*run.imported["files"]] == [FILE] and run.checkpoint.step == 0
    again = FORMATS[settings["_class_name"]].export(vaezoo.load(tmp_path / "run").vae.state_dict())
    assert all(torch.equal(t, again[name]) for name, t in weights(case).items())


@torch.no_grad()
@pytest.mark.parametrize("likelihood", ["gaussian-identity", "laplace-identity:0.1"])
@pytest.mark.parametrize("case", ["stable-diffusion", "vqgan", "tiny"])
def test_run_gives_images_in_the_unit_interval(case, likelihood, folder, tmp_path):
    vae = import_folder(folder(case), tmp_path / "run", likelihood=likelihood).vae
    x = images((16, 16))
    params = vae.decode(vae.encode(x).mode())
    assert params.min() < 0 or params.max() > 1  # these weights leave it
    assert torch.equal(vae.reconstruct(x), params.clamp(0, 1))


def test_settings_that_a_file_leaves_out(folder, tmp_path):
    """diffusers has defaults for them, which are not those of our models."""
    source = folder("stable-diffusion")
    settings = json.loads((source / "config.json").read_text())
    for name in ("scaling_factor", "shift_factor", "use_quant_conv", "mid_block_add_attention", "latent_channels"):
        del settings[name]
    (source / "config.json").write_text(json.dumps(settings))
    run = import_folder(source, tmp_path / "run")
    named = ("scaling_factor", "shift_factor", "quant_conv", "mid_attention", "latent_channels")
    assert [run.options[name] for name in named] == [0.18215, 0.0, True, True, 4]


def test_names_of_old_attention(folder, tmp_path):
    """diffusers called the layers of attention otherwise until 0.13, and published files still do."""
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = {}
    for name, tensor in weights("stable-diffusion").items():
        for new, before in old.items():
            name = name.replace(f".attentions.0.{new}.", f".attentions.0.{before}.")
        tensors[name] = tensor
    assert any("proj_attn" in name for name in tensors)
    run = import_folder(folder("stable-diffusion", tensors=tensors), tmp_path / "run")
    assert all(torch.equal(t, weights("stable-diffusion")[n]) for n, t in run.vae.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_float32(dtype, folder, tmp_path):
    tensors = {name: t.to(dtype) for name, t in weights("tiny").items()}
    source = folder("tiny", file=HALF, tensors=tensors)
    run = import_folder(source, tmp_path / "run")
    assert all(t.dtype == torch.float32 for t in run.vae.state_dict().values())
    if dtype == torch.float16:  # back as it came
        back = load_file(export_diffusers(run, tmp_path / "back", dtype="fp16") / HALF)
        assert all(torch.equal(back[name], t) and back[name].dtype == dtype for name, t in tensors.items())


@pytest.mark.parametrize("case", CASES)
def test_export_gives_tensors_and_settings_back(case, folder, tmp_path):
    source = folder(case, **{name: False for name in ("force_upcast",) if name in GOLDEN[case]["config"]})
    back = export_diffusers(import_folder(source, tmp_path / "run"), tmp_path / "back")
    expected, actual = load_file(source / FILE), load_file(back / FILE)
    assert expected.keys() == actual.keys() and all(torch.equal(t, actual[n]) for n, t in expected.items())
    settings = json.loads((source / "config.json").read_text())
    written = json.loads((back / "config.json").read_text())
    assert written == {name: v for name, v in settings.items() if not name.startswith("_") or name == "_class_name"}
    with safe_open(back / FILE, "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_a_trained_run_becomes_a_folder(digits, tmp_path):
    data = replace(digits, spec=replace(digits.spec, likelihood="gaussian-identity"))
    options = {"channels": "8,8", "norm_groups": 4, "scaling_factor": 0.5}
    run = vaezoo.train("autoencoder-kl", data, options=options, config={"steps": 2}, out=tmp_path / "run")
    again = import_folder(export_diffusers(run, tmp_path / "folder"), tmp_path / "again", image_size=28)
    assert {**again.options, "objective.beta": 1e-6} == run.options and again.data.shape == run.data.shape
    assert torch.equal(again.vae.reconstruct(data.valid.x[:4] / 255), run.vae.reconstruct(data.valid.x[:4] / 255))


def test_a_trained_codebook_becomes_a_folder(digits, tmp_path):
    """Moving averages and a fitted prior stay behind."""
    data = replace(digits, spec=replace(digits.spec, likelihood="gaussian-identity"))
    options = {"channels": "8,8", "norm_groups": 4, "quantizer.codebook": "ema", "codebook_size": 16}
    run = vaezoo.train("vq-autoencoder", data, options=options, config={"steps": 2}, out=tmp_path / "run")
    fit = {"options": {"hidden": 16, "layers": 1}, "steps": 1, "data": data}
    run = vaezoo.fit_prior(run, "autoregressive", out=tmp_path / "fitted", **fit)
    again = import_folder(export_diffusers(run, tmp_path / "folder"), tmp_path / "again", image_size=28)
    changed = {name for name, value in again.options.items() if run.options.get(name) != value}
    assert changed == {"quantizer.codebook"}
    assert torch.equal(again.vae.encode(data.valid.x[:4] / 255).z, run.vae.encode(data.valid.x[:4] / 255).z)
    assert torch.equal(again.vae.reconstruct(data.valid.x[:4] / 255), run.vae.reconstruct(data.valid.x[:4] / 255))


@pytest.mark.parametrize(
    ("model", "options", "likelihood", "message"),
    [
        ("conv-vae", {}, "gaussian-identity", "diffusers has no conv-vae"),
        ("autoencoder-kl", {"channels": "8,8", "norm_groups": 4}, "bernoulli", "puts out no images"),
        ("tiny-autoencoder", {"channels": 4, "latent_norm": True}, "gaussian-identity", "no layers for the option"),
        (
            "vq-autoencoder",
            {"channels": "8,8", "norm_groups": 4, "quantizer": "fsq"},
            "gaussian-identity",
            "has one codebook, and not quantizer=fsq",
        ),
    ],
)
def test_what_diffusers_does_not_have(model, options, likelihood, message, digits, tmp_path):
    data = replace(digits, spec=replace(digits.spec, likelihood=likelihood))
    run = vaezoo.train(model, data, options=options, config={"steps": 1}, out=tmp_path / "run")
    with pytest.raises(VaezooError, match=message) as e:
        export_diffusers(run, tmp_path / "folder")
    assert e.value.hint and not (tmp_path / "folder").exists()


def test_weights_too_large_for_float16(folder, tmp_path):
    tensors = weights("tiny")
    tensors["encoder.layers.0.weight"][0, 0] = 1e6
    run = import_folder(folder("tiny", tensors=tensors), tmp_path / "run")
    with pytest.raises(VaezooError, match=r"encoder\.layers\.0\.weight is too large"):
        export_diffusers(run, tmp_path / "back", dtype="fp16")
    assert not (tmp_path / "back").exists()


def test_scales_of_channels_are_mentioned(folder, tmp_path):
    source = folder("flux", latents_mean=[0.0] * 16, latents_std=[1.0] * 16)
    with pytest.warns(VaezooWarning, match="latents_mean"):
        run = import_folder(source, tmp_path / "run")
    assert json.loads((export_diffusers(run, tmp_path / "b") / "config.json").read_text())["latents_std"] == [1.0] * 16


@with_diffusers
@torch.no_grad()
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("case", CASES)
def test_models_equal_diffusers(case, size, tmp_path):
    """With its own random weights and its own files, there and back."""
    import diffusers

    cls = getattr(diffusers, CASES[case]["_class_name"])
    torch.manual_seed(0)
    model = cls(**{name: value for name, value in CASES[case].items() if name != "_class_name"}).eval()
    if hasattr(model, "quantize"):
        torch.nn.init.normal_(model.quantize.embedding.weight)  # its own are so small that all are equally near
    model.save_pretrained(tmp_path / "theirs")
    run = import_folder(tmp_path / "theirs", tmp_path / "run")
    back = cls.from_pretrained(export_diffusers(run, tmp_path / "back")).eval()
    ours, config = (
        json.dumps({n: v for n, v in m.config.items() if n[0] != "_"}, sort_keys=True) for m in (back, model)
    )
    assert ours == config
    for theirs in (model, back):
        encoded = theirs.encode(2 * images(size) - 1)
        h = latents(tuple(mode_of(encoded).shape[1:]))
        torch.testing.assert_close(mode(run.vae.encode(images(size))), mode_of(encoded), **CLOSE)
        torch.testing.assert_close(decode(run.vae, h), (theirs.decode(h).sample + 1) / 2, **CLOSE)
