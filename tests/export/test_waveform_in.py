"""Exports whose encoder takes waveforms: the front end, the gate, the runtime and what is refused."""

import json
import math

import numpy as np
import pytest
import torch

import vaezoo
from vaezoo import DataSpec, export_onnx, verify_onnx
from vaezoo.data.sound.sound_files import write_wav
from vaezoo.data.sound.spectrogram import FLOOR, log_mel
from vaezoo.errors import UnsupportedDataError, VaezooError
from vaezoo.evaluation.outputs import iter_encoded
from vaezoo.explore.page import example_files
from vaezoo.export.front_end import FrontEnd

SOUND = DataSpec(name="sound", shape=(1, 64, 9), likelihood="gaussian", kind="real", sample_rate=8_000)


def sounds(count, samples, rate):
    """Returns tones with a little noise, `(count, samples)`."""
    rng = np.random.default_rng(0)
    time = np.arange(samples) / rate
    tones = [0.4 * np.sin(2 * math.pi * (200 + 150 * i) * time) for i in range(count)]
    return (np.stack(tones) + 0.01 * rng.standard_normal((count, samples))).astype(np.float32)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("waveforms")
    (folder / "d").mkdir()
    for i, sound in enumerate(sounds(12, 1_100, 8_000)):
        (folder / f"d/{i:02}.wav").write_bytes(write_wav(sound, 8_000))
    data = vaezoo.load_data(folder / "d", kind="sound", window=8)
    config = vaezoo.TrainConfig(steps=2, batch_size=5, device="cpu")
    options = {"channels": "4,4,4", "latent_dim": 3}
    return vaezoo.train("spectrogram-vae", data, options=options, config=config, out=folder / "run")


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    return export_onnx(run, tmp_path_factory.mktemp("exported") / "e", waveform_in=True).path


@pytest.mark.parametrize("rate", [8_000, 16_000])
def test_front_end_is_that_of_the_files(rate):
    spec = DataSpec(
        name="x", shape=(1, 64, 9), likelihood="gaussian", kind="real", sample_rate=rate, offset=(-3.0,), factor=(2.0,)
    )
    front_end = FrontEnd(spec)
    x = sounds(4, front_end.samples, rate)
    expected = spec.scaling.apply(np.stack([log_mel(sound, rate)[None] for sound in x]))
    found = front_end(torch.from_numpy(x)).numpy()
    assert found.shape == (4, *spec.shape)
    assert np.abs(found - expected).max() < 1e-4  # 9.5e-6 was seen
    silence = front_end(torch.zeros(1, front_end.samples))
    assert silence.numpy() == pytest.approx((math.log(FLOOR) + 3) / 2)


def test_waveforms_of_examples():
    """Griffin and Lim give waveforms that the gate can use: in range, and with a similar spectrogram."""
    front_end = FrontEnd(SOUND)
    x = front_end(torch.from_numpy(sounds(2, front_end.samples, 8_000)))
    waveforms = front_end.waveforms(x)
    assert waveforms.shape == (2, front_end.samples) and float(waveforms.abs().max()) <= 1
    assert float((front_end(waveforms) - x).abs().mean()) < 0.7
    assert torch.equal(waveforms, front_end.waveforms(x))


@pytest.mark.slow
def test_runtime_encodes_waveforms(run, exported):
    model = vaezoo.runtime.load(exported)
    assert model.shape == (7 * 128,) and model.data["sample_rate"] == 8_000
    assert json.loads((exported / "manifest.json").read_text())["format"]["waveform"] is True
    x = sounds(3, 7 * 128, 8_000)
    spectrograms = np.stack([log_mel(sound, 8_000)[None] for sound in x])
    expected = vaezoo.encode(run, spectrograms)["mu"]
    assert model.encode(x)["mu"] == pytest.approx(expected, abs=1e-4)
    assert model.reconstruct(x).shape == (3, 1, 64, 8)
    with pytest.raises(VaezooError, match="has shape") as e:
        model.encode(x[:, :-1])
    assert "896" in e.value.hint
    assert verify_onnx(exported).parity
    assert example_files(exported) is None
    assert "waveforms of 896 samples" in (exported / "README.md").read_text()


@pytest.mark.slow
def test_files_need_the_other_encoder(run, exported):
    model = vaezoo.runtime.load(exported)
    with pytest.raises(UnsupportedDataError, match="takes waveforms") as e:
        next(iter_encoded(model, run.load_data().valid))
    assert "--waveform-in" in e.value.hint
    with pytest.raises(UnsupportedDataError, match="takes waveforms"):
        vaezoo.evaluate(model, run.load_data())


def test_what_is_refused(run, inside):
    for options, words in (({"uint8": True}, "--uint8"), ({"dtype": "fp16"}, "--dtype fp16")):
        with pytest.raises(VaezooError, match="--waveform-in") as e:
            export_onnx(run, "e", waveform_in=True, **options)
        assert words in e.value.message
    images = vaezoo.create_model("mlp-vae", DataSpec(name="x", shape=(1, 8, 8)))
    with pytest.raises(UnsupportedDataError, match="not on spectrograms"):
        export_onnx(images, "e", waveform_in=True)
