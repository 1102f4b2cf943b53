"""Sound from `vaezoo train` to .wav files."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vaezoo
from vaezoo.data.sound.sound_files import read_sound, write_wav
from vaezoo.evaluation.outputs import iter_encoded

MODEL = "spectrogram-vae"
PATTERN = "([a-z]+)_"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a run on low and high tones."""
    folder = tmp_path_factory.mktemp("sound")
    (folder / "d").mkdir()
    for i in range(30):
        tone = 0.4 * np.sin(2 * np.pi * (300 + 60 * i) * np.arange(3_000) / 8_000)
        (folder / f"d/{'low' if i < 15 else 'high'}_{i:02}.wav").write_bytes(write_wav(tone, 8_000))
    data = vaezoo.load_data(folder / "d", kind="sound", label_pattern=PATTERN)
    config = vaezoo.TrainConfig(steps=6, eval_every=6, batch_size=9, device="cpu")
    options = {"channels": "4,4", "latent_dim": 3}
    vaezoo.train(MODEL, data, options=options | {"condition": "labels"}, config=config, out=folder / "given")
    return vaezoo.train(MODEL, data, options=options, config=config, out=folder / "run").path


@pytest.fixture
def given(trained):
    """The folder of a run that is given labels."""
    return trained.parent / "given"


def test_training_from_the_command_line(trained, run_ok, inside):
    options = ("-o", "channels=4", "--steps", 2, "--batch-size", 9, "--device", "cpu", "--out", "r")
    run_ok("train", "spectrogram-vae", "--data", trained.parent / "d", "--kind", "sound", *options)
    run = vaezoo.load("r")
    assert run.source.kind == "sound" and run.data.sample_rate == 8_000
    assert run.load_data().spec == run.data


def test_samples_are_sound(trained, run_ok, run, inside):
    run_ok("sample", trained, "-n", 3)
    samples, rate = read_sound(trained / "samples.wav")
    assert rate == 8_000 and samples.shape == (3 * 31 * 128, 1)
    run_ok("sample", trained, "-n", 3, "--out", "s.wav")
    assert Path("s.wav").read_bytes() == (trained / "samples.wav").read_bytes()
    run_ok("sample", trained, "-n", 2, "--out", "s.npy")
    assert np.load("s.npy").shape == (2, 1, 64, 32)
    assert run("sample", trained, "--out", "s.png")[0] == 2


def test_reconstructions_have_the_names_of_the_files(trained, run_ok, inside):
    run_ok("reconstruct", trained, "--data", trained.parent / "d", "--limit", 4, "--out", "again/")
    files = sorted(path.name for path in Path("again").iterdir())
    assert len(files) == 4 and files[0] == "high_15.wav"
    assert all(len(read_sound(Path("again") / name)[0]) == 31 * 128 for name in files)


def test_files_are_scored(trained, run_ok, run, inside):
    out = run_ok("score", trained, "--data", trained.parent / "d/low_05.wav")
    assert out.splitlines()[1].startswith("low_05.wav,")
    Path("x.wav").write_bytes(b"")
    code, _, err = run("score", trained, "--data", "x.wav")
    assert code == 3 and "x.wav' cannot be read" in err


def test_attributes_are_added(trained, run_ok, run, inside):
    """Adding the vector of a label moves latents by the difference of the means of the training examples."""
    loaded = vaezoo.load(trained)
    train = loaded.load_data().train
    z, low = loaded.encode()["mu"], train.y.numpy() == 1
    train_z = np.concatenate([chunk["mu"] for chunk in iter_encoded(loaded, train)])
    direction = train_z[low].mean(0) - train_z[~low].mean(0)
    run_ok("reconstruct", trained, "--attribute", "low", "--amount", 2, "--out", "x.npy")
    assert np.load("x.npy") == pytest.approx(vaezoo.decode(loaded, z + 2 * direction), abs=1e-4)
    for options, words in (
        (["--attribute", "lw"], "no example has label lw"),
        (["--factor", 0], "--factor is the index of an attribute"),
        (["--label", "low"], "not given labels"),
    ):
        code, _, err = run("reconstruct", trained, *options, "--out", "y.npy")
        assert code == 2 and words in err and not Path("y.npy").exists()


def test_labels_are_exchanged(given, run_ok, inside):
    loaded = vaezoo.load(given)
    examples = vaezoo.load_examples(loaded)
    z = loaded.encode(examples)["mu"]
    run_ok("reconstruct", given, "--label", "high", "--out", "x.npy")
    expected = vaezoo.decode(loaded, z, y=np.zeros(len(z), np.int64))
    assert np.load("x.npy") == pytest.approx(expected, abs=1e-5)
    assert np.abs(expected - vaezoo.reconstruct(loaded, examples)).max() > 1e-3
    run_ok("sample", given, "-n", 2, "--label", "low", "--out", "low.wav")


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("samples", ["-n", 4]),
        ("reconstructions", ["-n", 3]),
        ("interpolation", []),
        ("attribute-vector", ["--label", "low"]),
    ],
)
def test_spectrograms_are_drawn(kind, options, trained, run_ok, inside):
    run_ok("plot", trained, "--kind", kind, *options, "--out", "x.png")
    assert np.asarray(Image.open("x.png")).std() > 5


@pytest.mark.parametrize("likelihood", ["gaussian:optimal", "multi-stft"])
def test_waveforms_from_training_to_files(likelihood, trained, run_ok, run, inside):
    """A model of waveforms is trained, resumed, and writes the sound that its decoder gives."""
    options = ("-o", "channels=4,4", "-o", "strides=4,4", "-o", "latent_dim=3", "--batch-size", 9, "--device", "cpu")
    data = ("--data", trained.parent / "d", "--kind", "waveform", "--window", 512, "--likelihood", likelihood)
    run_ok("train", "waveform-vae", *data, *options, "--steps", 2, "--out", "r")
    run_ok("train", "--resume", "r", "--steps", 3)
    run_ok("reconstruct", "r", "--data", trained.parent / "d/low_03.wav", "--out", "again/")
    again = vaezoo.reconstruct(vaezoo.load("r"), trained.parent / "d/low_03.wav")
    assert again.shape == (6, 1, 512)
    samples, rate = read_sound(Path("again/low_03.wav"))
    assert rate == 8_000 and samples[:, 0] == pytest.approx(np.clip(again[0, 0], -1, 1), abs=1e-4)
    run_ok("sample", "r", "-n", 2, "--out", "s.wav")
    assert len(read_sound(Path("s.wav"))[0]) == 2 * 512
    code, _, err = run("export", "r", "--onnx", "--waveform-in", "--out", "e")
    assert code == 2 and "not on spectrograms" in err and not Path("e").exists()


@pytest.mark.slow
def test_exports_give_sound(trained, run_ok, inside):
    run_ok("export", trained, "--onnx", "--out", "e")
    run_ok("verify", "e")
    run_ok("sample", "e", "-n", 2, "--out", "s.wav")
    assert len(read_sound(Path("s.wav"))[0]) == 2 * 31 * 128
    run_ok("encode", "e", "--data", trained.parent / "d", "--out", "z.npz")
    assert np.load("z.npz")["mu"].shape == (30, 3)
