"""--augment in a training: which batches it changes, and which data it refuses."""

import numpy as np
import pytest
import torch

import vaezoo
from vaezoo import TrainConfig, Trainer
from vaezoo.errors import VaezooError


@pytest.fixture(scope="module")
def data():
    x = np.random.default_rng(0).integers(0, 256, (60, 8, 8)).astype(np.uint8)
    return vaezoo.from_arrays(x)


def trained(data, model="mlp-vae", **settings):
    """The weights after a few steps, and the inputs that the model saw in training and in evaluation."""
    torch.manual_seed(0)
    vae = vaezoo.create_model(model, data, {"latent_dim": 2})
    seen = {True: [], False: []}
    vae.register_forward_hook(lambda module, args, output: seen[module.training].append(args[1].x))
    config = TrainConfig(batch_size=20, **{"steps": 4, "compile": "off", "device": "cpu"} | settings)
    Trainer(vae, vaezoo.ELBO(), data, config).fit()
    return torch.cat([p.detach().flatten() for p in vae.parameters()]), seen


def test_only_training_batches_are_changed(data):
    _, seen = trained(data, augment=("shift=3",))
    originals = {image.numpy().tobytes() for image in data.train.batch(slice(None)).x}
    unchanged = sum(image.numpy().tobytes() in originals for batch in seen[True] for image in batch)
    assert unchanged < 12 < sum(map(len, seen[True])) == 80  # one in 49 is not moved
    valid = {image.numpy().tobytes() for image in data.valid.batch(slice(None)).x}
    assert {image.numpy().tobytes() for batch in seen[False] for image in batch} == valid


def test_the_seed_and_the_step_fix_the_changes(data):
    first, again, other = (trained(data, augment=("hflip", "crop=2"), seed=seed)[0] for seed in (0, 0, 1))
    assert first.equal(again) and not first.equal(other) and not first.equal(trained(data)[0])


@pytest.mark.slow
@pytest.mark.parametrize("accumulation", [pytest.param(1, marks=pytest.mark.matrix), 2])
def test_compiled_steps_take_the_same_images(data, accumulation):
    changes = ("hflip", "vflip", "shift=2", "crop=1")
    plain, compiled = (
        trained(data, augment=changes, grad_accum_steps=accumulation, compile=c)[0] for c in ("off", "on")
    )
    assert torch.allclose(plain, compiled, atol=1e-5)


@pytest.mark.parametrize(
    ("augment", "words"),
    [
        (("flip",), "'augment' flip is not known"),
        (("hflip", "hflip"), "'augment' hflip comes twice"),
        (("hflip=2",), "'augment' hflip=2 has a number"),
        (("shift",), "'augment' shift has no number of pixels"),
        (("shift=0",), "shift=0 has no number"),
        (("shift=-1",), "shift=-1 has no number"),
        (("crop=1.5",), "crop=1.5 has no number"),
        (("crop=²",), "has no number"),
        (("crop=99999999999999999999",), "has no number"),
    ],
)
def test_wrong_changes_are_refused(augment, words):
    with pytest.raises(VaezooError, match=words):
        TrainConfig(augment=augment)


def test_data_must_be_larger_images(data):
    with pytest.raises(VaezooError, match=r"moves images by 8 pixels, and they are 8x8"):
        trained(data, augment=("shift=8",))
    for name in ("penguins", "sines"):
        with pytest.raises(VaezooError, match="no images to augment"):
            trained(vaezoo.load_data(name), augment=("hflip",))
