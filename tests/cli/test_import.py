"""vaezoo import: from a folder of diffusers to every command, and what is refused."""

import json
import struct

import numpy as np
import pytest
import torch
from foreign import CASES, weights_of, write_folder
from PIL import Image
from safetensors.torch import save_file

import vaezoo
from vaezoo import DataSpec, create_model
from vaezoo.errors import StorageError
from vaezoo.interop.formats import FORMATS

FILE = "diffusion_pytorch_model.safetensors"
SMALL = {
    "AutoencoderKL": {
        "block_out_channels": [4, 8],
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
        "norm_num_groups": 2,
    },
    "VQModel": {
        "block_out_channels": [4, 8],
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
        "norm_num_groups": 2,
        "latent_channels": 4,
        "num_vq_embeddings": 16,
    },
    "AutoencoderTiny": {
        "encoder_block_out_channels": [4, 4],
        "decoder_block_out_channels": [4, 4],
        "num_encoder_blocks": [1, 1],
        "num_decoder_blocks": [1, 1],
    },
    "AutoencoderDC": {
        "latent_channels": 4,
        "encoder_block_out_channels": [8, 8],
        "decoder_block_out_channels": [8, 8],
        "encoder_layers_per_block": [1, 1],
        "decoder_layers_per_block": [1, 1],
        "encoder_block_types": ["ResBlock", "EfficientViTBlock"],
        "encoder_qkv_multiscales": [[], [5]],
        "decoder_qkv_multiscales": [[], []],
        "attention_head_dim": 4,
        "decoder_norm_types": ["batch_norm", "rms_norm"],
    },
}

GRIDS = {"AutoencoderKL": "4x8x8", "VQModel": "8x8", "AutoencoderTiny": "4x8x8", "AutoencoderDC": "4x8x8"}
# of images of 16x16 pixels


def small_folder(path, name="AutoencoderKL", **changes):
    """Writes a small folder of a class, and returns its weights."""
    settings = {"_class_name": name, **SMALL[name]}
    data = DataSpec(name="x", shape=(3, 8, 8), likelihood="gaussian-identity")
    vae = create_model(FORMATS[name].model, data, FORMATS[name].read(settings))
    weights = weights_of({name: tuple(t.shape) for name, t in FORMATS[name].export(vae.state_dict()).items()})
    write_folder(path, {**settings, **changes}, weights)
    return weights


@pytest.fixture
def photos(inside):
    """A folder of 24 images of 20x20 pixels."""
    rng = np.random.default_rng(0)
    (inside / "photos").mkdir()
    for number in range(24):
        colours = rng.integers(0, 256, (2, 2, 3), np.uint8)
        Image.fromarray(colours).resize((20, 20)).save(inside / "photos" / f"{number:02d}.png")
    return inside / "photos"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [n if n == "AutoencoderTiny" else pytest.param(n, marks=pytest.mark.matrix) for n in SMALL]
)
def test_every_command_takes_an_imported_run(name, photos, inside, run, run_ok):
    small_folder(inside / "vae", name)
    code, out, err = run("import", "vae", "--out", "first", "--image-size", 16)
    assert (code, err) == (0, "") and f"images 3x16x16, latents {GRIDS[name]}\n" in out and "written  first/" in out
    code, _, err = run("eval", "first", "--data", "photos", "--metrics", "reconstructions", "--json")
    assert code == 0 and "not finished" not in err
    for command in ("reconstruct", "encode", "sample"):
        run_ok(command, "first", *(() if command == "sample" else ("--data", "photos")))
    settings = ("--image-size", 16, "--batch-size", 8, "--lr", 0.01)
    run_ok("train", "--init-from", "first", "--data", "photos", "--steps", 20, *settings, "--out", "second")
    first, second = vaezoo.load("first"), vaezoo.load("second")
    assert second.options == first.options and second.data.likelihood == first.data.likelihood
    assert psnr(second) > psnr(first) + 0.5
    run_ok("export", "second", "--onnx", "--out", "onnx")
    assert f"from weights that were imported from {name}" in (inside / "onnx" / "README.md").read_text()
    run_ok("verify", "onnx")
    run_ok("bench", "second", "--batch", "1", "--seconds", "0.01")
    run_ok("sample", "onnx", "-n", 4)
    run_ok("export", "second", "--format", "diffusers", "--out", "back")
    run_ok("import", "back", "--out", "third", "--image-size", 16)
    assert all(torch.equal(t, second.vae.state_dict()[n]) for n, t in vaezoo.load("third").vae.state_dict().items())
    card = run_ok("export", "third", "--onnx", "--out", "card") and (inside / "card" / "README.md").read_text()
    assert f"imported from {name}" in card and "none: the weights were imported" in card


def psnr(run):
    """Returns the PSNR of a run on the photos."""
    found = vaezoo.evaluate(run, "photos", metrics=("reconstructions",)).metrics
    return next(metric.value for metric in found if metric.name == "PSNR")


def test_json_and_default_folder(inside, run_ok):
    small_folder(inside / "My VAE", "AutoencoderTiny")
    result = json.loads(run_ok("import", "My VAE", "--json"))
    assert result["run"] == "runs/tiny-autoencoder-my-vae-1" and result["imported"]["class"] == "AutoencoderTiny"
    assert json.loads(run_ok("import", "My VAE", "--json"))["run"] == "runs/tiny-autoencoder-my-vae-2"
    out = run_ok("export", "runs/tiny-autoencoder-my-vae-1", "--format", "diffusers")
    assert out.strip() == "written  exports/tiny-autoencoder-my-vae-1-diffusers/"


def test_options_of_the_run_can_be_changed(photos, inside, run, run_ok):
    small_folder(inside / "vae")
    run_ok("import", "vae", "--out", "first")
    train = ("train", "--init-from", "first", "--data", "photos", "--image-size", 16, "--steps", 1, "--batch-size", 8)
    run_ok(*train, "-o", "beta=0.5", "--likelihood", "laplace-identity", "--out", "second")
    first, second = vaezoo.load("first"), vaezoo.load("second")
    assert {name for name, value in second.options.items() if value != first.options[name]} == {"objective.beta"}
    assert second.options["objective.beta"] == 0.5
    assert second.data.likelihood == "laplace-identity"
    code, _, err = run(*train, "--likelihood", "gaussian", "--out", "third")
    assert code == 0 and "the decoder's output means other images" in err


def edited(path, **changes):
    settings = json.loads((path / "config.json").read_text())
    settings = {name: value for name, value in {**settings, **changes}.items() if value is not ...}
    (path / "config.json").write_text(json.dumps(settings))


def replaced(path, weights, **changes):
    """Replaces weights of the file. None removes one."""
    tensors = {name: t for name, t in {**weights, **changes}.items() if t is not None}
    save_file(tensors, path / FILE)


def moved(path, name):
    (path / FILE).rename(path / name)


def cut(path, size):
    (path / FILE).write_bytes((path / FILE).read_bytes()[:size])


def huge_header(path):
    (path / FILE).write_bytes(struct.pack("<Q", 1 << 40) + b"{}")


def repeated_name(path):
    entry = '"quant_conv.bias":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    header = f"{{{entry},{entry}}}".encode()
    (path / FILE).write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))


NAN = torch.tensor([float("nan")] * 4)
CASES_OF_BAD_INPUT = {
    "no folder": (lambda p, w: p.rename(p.with_name("x")), "is not a folder", "give the folder"),
    "no config": (lambda p, w: (p / "config.json").unlink(), "has no config.json", "give a folder with"),
    "no json": (lambda p, w: (p / "config.json").write_text("{"), "config.json is damaged", "restore"),
    "no class": (lambda p, w: edited(p, _class_name=...), "has no _class_name", "give the folder"),
    "another class": (
        lambda p, w: edited(p, _class_name="AutoencoderKLWan"),
        "AutoencoderKLWan is not supp",
        "import Aut",
    ),
    "class of a module": (lambda p, w: edited(p, _class_name=["own", "Model"]), "is not supported", "import Aut"),
    "code": (lambda p, w: edited(p, auto_map={"AutoModel": "own.Model"}), "asks for code", "diffusers has itself"),
    "unknown setting": (lambda p, w: edited(p, dropout=0.5), "'dropout'", "update vaezoo"),
    "activation": (lambda p, w: edited(p, act_fn="gelu"), "act_fn gelu", "act_fn silu"),
    "blocks": (lambda p, w: edited(p, down_block_types=["AttnDownEncoderBlock2D"] * 2), "down_block_types", "import"),
    "channels out": (lambda p, w: edited(p, out_channels=4), "out_channels 4", "out_channels 3"),
    "text for a list": (lambda p, w: edited(p, block_out_channels="8"), "block_out_channels", "correct"),
    "text in a list": (lambda p, w: edited(p, block_out_channels=["x", 8]), "'channels' takes", "correct"),
    "groups": (lambda p, w: edited(p, norm_num_groups=3), "cannot be divided", "correct"),
    "many layers": (lambda p, w: edited(p, layers_per_block=10**9), "1 to 100 layers", "correct"),
    "terabytes": (lambda p, w: edited(p, block_out_channels=[10**7, 10**7]), "do not fit AutoencoderKL", "one model"),
    "no number": (lambda p, w: edited(p, scaling_factor="x"), "'scaling_factor' takes", "correct"),
    "colours": (lambda p, w: edited(p, in_channels=0, out_channels=0), "'in_channels' is 0", "correct"),
    "no weights": (lambda p, w: (p / FILE).unlink(), f"has no {FILE}", "download"),
    "pickle": (lambda p, w: moved(p, "diffusion_pytorch_model.bin"), f"has no {FILE}", "pickled"),
    "parts": (lambda p, w: moved(p, f"{FILE}.index.json"), f"has no {FILE}", "in one file"),
    "missing weight": (
        lambda p, w: replaced(p, w, **{"quant_conv.bias": None}),
        "quant_conv.bias is missing",
        "one model",
    ),
    "other weight": (lambda p, w: replaced(p, w, more=torch.ones(1)), "more is not in the model", "one model"),
    "shape": (
        lambda p, w: replaced(p, w, **{"post_quant_conv.bias": torch.ones(5)}),
        "post_quant_conv.bias has shape (5,), not (4,)",
        "one model",
    ),
    "type": (
        lambda p, w: replaced(p, w, **{"post_quant_conv.bias": torch.ones(4, dtype=torch.int8)}),
        "type I8",
        "F32",
    ),
    "not finite": (lambda p, w: replaced(p, w, **{"post_quant_conv.bias": NAN}), "post_quant_conv.bias", "again"),
    "cut": (lambda p, w: cut(p, 5000), "is damaged", "again"),
    "cut header": (lambda p, w: cut(p, 100), "is damaged", "again"),
    "empty": (lambda p, w: cut(p, 0), "is damaged", "again"),
    "huge header": (lambda p, w: huge_header(p), "is damaged", "again"),
    "repeated name": (lambda p, w: repeated_name(p), "a name appears twice", "again"),
}


CASES_OF_BAD_CODES = {
    "normalisation": ({"norm_type": "spatial"}, "norm_type spatial, which vq-autoencoder does not have", "group"),
    "no codes": ({"num_vq_embeddings": 0}, "'codebook_size' is 0", "correct"),
    "terabytes of codes": ({"num_vq_embeddings": 10**9}, "'codebook_size' makes 1,000,000,000 codes", "correct"),
    "no number": ({"vq_embed_dim": "x"}, "'quantizer.code_dim' takes", "correct"),
    "another codebook": ({"num_vq_embeddings": 17}, "has shape (16, 4), not (17, 4)", "one model"),
    "attention": ({"up_block_types": ["AttnUpDecoderBlock2D"] * 2}, "up_block_types", "UpDecoderBlock2D"),
}


@pytest.mark.parametrize("case", CASES_OF_BAD_CODES)
def test_bad_folder_of_codes(case, inside, run):
    changes, message, hint = CASES_OF_BAD_CODES[case]
    small_folder(inside / "vae", "VQModel", **changes)
    refused(run, inside, 3, message, hint, "import", "vae", "--out", "new")


CASES_OF_BAD_COMPRESSION = {
    "normalisation": ({"decoder_norm_types": "layer_norm"}, "decoder_norm_types layer_norm", "rms_norm"),
    "activation": ({"decoder_act_fns": ["silu", "tanh"]}, "decoder_act_fns tanh", "silu"),
    "block": ({"encoder_block_types": ["ResBlock", 3]}, "encoder_block_types 3", "ResBlock"),
    "change": ({"upsample_block_type": "bilinear"}, "upsample_block_type bilinear", "pixel_shuffle"),
    "count": ({"decoder_block_types": ["ResBlock"]}, "'decoder_block_types' has 1 values for 2", "correct"),
    "layers": ({"decoder_layers_per_block": [1, "x"]}, "'decoder_layers_per_block' is x", "correct"),
    "no blocks": ({"encoder_layers_per_block": [1, 0]}, "0 blocks at resolution 2", "correct"),
    "surroundings": ({"encoder_qkv_multiscales": [[], 5]}, "'encoder_qkv_multiscales' has 5", "correct"),
    "even": ({"encoder_qkv_multiscales": [[], [4]]}, "'scales' is '4'", "correct"),
    "channels": ({"decoder_block_out_channels": [8, 5]}, "to 5", "correct"),
}


@pytest.mark.parametrize("case", CASES_OF_BAD_COMPRESSION)
def test_bad_folder_of_deep_compression(case, inside, run):
    changes, message, hint = CASES_OF_BAD_COMPRESSION[case]
    small_folder(inside / "vae", "AutoencoderDC", **changes)
    refused(run, inside, 3, message, hint, "import", "vae", "--out", "new")


@pytest.mark.parametrize("case", CASES_OF_BAD_INPUT)
def test_bad_folder(case, inside, run):
    damage, message, hint = CASES_OF_BAD_INPUT[case]
    weights = small_folder(inside / "vae")
    damage(inside / "vae", weights)
    refused(run, inside, 3, message, hint, "import", "vae", "--out", "new")


def refused(run, inside, expected, message, hint, *arguments):
    """Checks that a command ends with an error of two lines, and writes nothing."""
    before = sorted(inside.rglob("*"))
    code, out, err = run(*arguments)
    lines = err.splitlines()
    assert (code, out, len(lines)) == (expected, "", 2), err
    assert message in lines[0] and hint in lines[1], err
    assert sorted(inside.rglob("*")) == before


@pytest.mark.parametrize(
    ("code", "arguments", "message", "hint"),
    [
        (2, ("--image-size", 15), "not a multiple of 2", "another --image-size"),
        (2, ("--image-size", 2), "out of range", "use 4 to"),
        (2, ("--likelihood", "bernoulli"), "takes logits", "gaussian-identity"),
        (2, ("--likelihood", "gausian"), "no likelihood named", "did you mean"),
        (5, ("--out", "full"), "full exists and is not empty", "another folder"),
    ],
)
def test_bad_options(code, arguments, message, hint, inside, run):
    small_folder(inside / "vae")
    (inside / "full").mkdir()
    (inside / "full" / "file").write_text("mine")
    refused(run, inside, code, message, hint, "import", "vae", *arguments)


def test_folder_of_a_whole_pipeline(inside, run):
    small_folder(inside / "model" / "vae")
    refused(run, inside, 3, "model is not the folder of an autoencoder", "model/vae", "import", "model")


@pytest.mark.parametrize(
    ("code", "arguments", "message", "hint"),
    [
        (2, ("train", "--resume", "run"), "run was imported", "--init-from run"),
        (2, ("eval", "run"), "run was imported, so it has no data", "--data"),
        (2, ("export", "run", "--format", "diffusers", "--dtype", "int8"), "unknown dtype 'int8'", "fp32 or fp16"),
        (2, ("export", "run", "--format", "diffusers", "--onnx"), "--onnx is for ONNX graphs", "leave out --onnx"),
        (2, ("export", "run", "--format", "diffusers", "--fold-scaling"), "--fold-scaling is for", "leave out"),
        (2, ("export", "run"), "no format given", "add --onnx"),
        (5, ("export", "run", "--format", "diffusers", "--out", "vae"), "vae exists", "another --out"),
        (
            2,
            ("train", "--init-from", "run", "--data", "digits", "-o", "chanels=4"),
            "no option named 'chanels'",
            "did you mean",
        ),
    ],
)
def test_what_an_imported_run_cannot_do(code, arguments, message, hint, inside, run, run_ok):
    small_folder(inside / "vae")
    run_ok("import", "vae", "--out", "run")
    refused(run, inside, code, message, hint, *arguments)


@pytest.mark.parametrize("step", ["save_checkpoint", "write_json"])
def test_failed_write_leaves_nothing(step, inside, run, monkeypatch):
    small_folder(inside / "vae")

    def fail(*arguments):
        raise StorageError("cannot write it: No space left on device", "free some of the disk")

    monkeypatch.setattr(f"vaezoo.interop.importing.{step}", fail)
    refused(run, inside, 5, "cannot write", "disk", "import", "vae", "--out", "new")


def test_the_current_folder_becomes_the_run(inside, run_ok, monkeypatch):
    small_folder(inside / "vae")
    (inside / "here").mkdir()
    monkeypatch.chdir(inside / "here")
    run_ok("import", "../vae", "--out", ".")
    assert vaezoo.load(inside / "here").imported["class"] == "AutoencoderKL"


def test_golden_cases_have_known_classes():
    assert {settings["_class_name"] for settings in CASES.values()} == set(FORMATS)


def test_commands_without_data_say_that_the_run_was_imported(inside, run, run_ok):
    small_folder(inside / "vae")
    run_ok("import", "vae", "--out", "first")
    for command in (("train", "--init-from", "first"), ("eval", "first")):
        code, _, err = run(*command)
        assert code == 2 and "was imported, so it has no data" in err and "--data" in err
    code, _, err = run("fit-prior", "first")
    assert code == 2 and "fitted to latent vectors, not to latents of shape" in err


def test_half_an_autoencoder_is_named(inside, run):
    (inside / "half").mkdir()
    save_file({"0.weight": torch.zeros(4, 3, 3, 3)}, inside / "half" / "taesd_decoder.safetensors")
    code, _, err = run("import", "half")
    assert code == 3 and "half holds half of an autoencoder: it has no encoder.safetensors" in err


def test_imported_runs_are_compared_as_finished(inside, run, run_ok):
    small_folder(inside / "vae")
    run_ok("import", "vae", "--out", "first")
    assert "unfinished" not in run_ok("compare", "first")


def test_many_latents_are_shown_by_their_range(photos, inside, run_ok):
    small_folder(inside / "vae")
    run_ok("import", "vae", "--out", "first", "--image-size", 16)
    out = run_ok("eval", "first", "--data", "photos")
    assert "256 values from" in out and max(map(len, out.splitlines())) < 200
