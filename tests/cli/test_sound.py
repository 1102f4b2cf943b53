"""Sound from `vaezoo train` to .wav files."""

from pathlib import Path

import numpy as np
import pytest

import vaezoo
from vaezoo.data.sound.sound_files import read_sound, write_wav


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a run on tones."""
    folder = tmp_path_factory.mktemp("sound")
    (folder / "d").mkdir()
    for i in range(30):
        tone = 0.4 * np.sin(2 * np.pi * (300 + 60 * i) * np.arange(3_000) / 8_000)
        (folder / f"d/{i:02}.wav").write_bytes(write_wav(tone, 8_000))
    data = vaezoo.load_data(folder / "d", kind="sound")
    config = vaezoo.TrainConfig(steps=6, eval_every=6, batch_size=9, device="cpu")
    options = {"channels": "4,4", "latent_dim": 3}
    return vaezoo.train("spectrogram-vae", data, options=options, config=config, out=folder / "run").path


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
    assert len(files) == 4 and files[0] == "00.wav"
    assert all(len(read_sound(Path("again") / name)[0]) == 31 * 128 for name in files)


def test_files_are_scored(trained, run_ok, run, inside):
    out = run_ok("score", trained, "--data", trained.parent / "d/05.wav")
    assert out.splitlines()[1].startswith("05.wav,")
    Path("x.wav").write_bytes(b"")
    code, _, err = run("score", trained, "--data", "x.wav")
    assert code == 3 and "x.wav' cannot be read" in err


@pytest.mark.slow
def test_exports_give_sound(trained, run_ok, inside):
    run_ok("export", trained, "--onnx", "--out", "e")
    run_ok("verify", "e")
    run_ok("sample", "e", "-n", 2, "--out", "s.wav")
    assert len(read_sound(Path("s.wav"))[0]) == 2 * 31 * 128
    run_ok("encode", "e", "--data", trained.parent / "d", "--out", "z.npz")
    assert np.load("z.npz")["mu"].shape == (30, 3)
