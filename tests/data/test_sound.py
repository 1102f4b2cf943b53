"""Sound: files, sample rates, spectrograms and the way back, and what is refused."""

import math
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from vaezoo import DataSpec, TrainConfig, VaezooError, load_data, load_examples, train
from vaezoo.data.inference import find_examples
from vaezoo.data.sound.resample import resample
from vaezoo.data.sound.sound_files import read_sound, write_wav
from vaezoo.data.sound.spectrogram import (
    FLOOR,
    MELS,
    frame_size,
    grey_levels,
    griffin_lim,
    istft,
    linear_magnitude,
    log_mel,
    mel_filters,
    stft,
    to_sound,
)
from vaezoo.errors import InputError, UnsupportedDataError, VaezooWarning

RATE = 8_000


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tone(frequency, seconds=0.5, rate=RATE):
    return 0.5 * np.sin(2 * math.pi * frequency * np.arange(int(seconds * rate)) / rate)


def write(path, samples, rate=RATE, width=2, channels=1):
    """Writes integers, little-endian, as a .wav file."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", ""))
        numbers = [int(n) for n in np.asarray(samples).ravel()]
        file.writeframes(b"".join(n.to_bytes(width, "little", signed=width > 1) for n in numbers))


def write_tones(folder, count=20, seconds=0.5):
    for i in range(count):
        write(f"{folder}/{i:02}.wav", 16_000 * tone(300 + 100 * i, seconds))


# Files


@pytest.mark.parametrize(("width", "zero"), [(1, 128), (2, 0), (3, 0), (4, 0)])
def test_integers_of_each_width(width, zero, folder):
    top = 2 ** (8 * width - 1)
    numbers = np.array([0, 1, -1, top - 1, -top])
    write("x.wav", numbers + zero, 11_025, width)
    samples, rate = read_sound(Path("x.wav"))
    assert rate == 11_025 and samples.dtype == np.float32
    np.testing.assert_allclose(samples[:, 0], numbers / top, rtol=1e-6)


def test_channels_and_what_is_written(folder):
    write("x.wav", [[100, 300], [-200, 0]], channels=2)
    np.testing.assert_allclose(read_sound(Path("x.wav"))[0] * 2**15, [[100, 300], [-200, 0]], rtol=1e-6)
    Path("y.wav").write_bytes(write_wav(np.array([0.5, -2.0]), RATE))
    samples, rate = read_sound(Path("y.wav"))
    assert rate == RATE and samples[:, 0] == pytest.approx([0.5, -1], abs=1e-4)


def test_other_formats(folder, monkeypatch):
    soundfile = pytest.importorskip("soundfile")
    soundfile.write("x.flac", tone(440), RATE)
    soundfile.write("x.wav", tone(440), RATE, subtype="FLOAT")
    for name in ("x.flac", "x.wav"):
        samples, rate = read_sound(Path(name))
        assert rate == RATE and samples[:, 0] == pytest.approx(tone(440), abs=1e-4)
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "soundfile", None)
            with pytest.raises(VaezooError, match="needs soundfile") as e:
                read_sound(Path(name))
            assert "audio" in e.value.hint


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be read"),
        (b"RIFF", "cannot be read"),
        (write_wav(np.zeros(100), RATE)[:-50], "declares 100 samples and has 75"),
        (write_wav(np.zeros(0), RATE), "holds no sound"),
        (write_wav(np.zeros(9), 10), "has 10 samples in a second"),
        (b"no sound at all " * 9, "cannot be read"),
    ],
)
def test_damaged_files_are_named(content, words, folder):
    Path("x.wav").write_bytes(content)
    with pytest.raises(InputError) as e:
        read_sound(Path("x.wav"))
    assert words in e.value.message and "x.wav" in e.value.message and e.value.hint


# Sample rates


@pytest.mark.parametrize(("old", "new"), [(44_100, 8_000), (8_000, 44_100), (16_000, 8_000), (8_000, 11_025)])
def test_a_tone_stays_the_same(old, new):
    again = resample(tone(1_000, rate=old).astype(np.float32), old, new)
    assert len(again) == math.ceil(len(tone(1_000, rate=old)) * new / old)
    np.testing.assert_allclose(again[200:-200], tone(1_000, 1, new)[: len(again)][200:-200], atol=1e-3)


def test_frequencies_that_do_not_fit_are_taken_away():
    assert np.abs(resample(tone(6_000, rate=44_100), 44_100, 8_000)[100:-100]).max() < 2e-3


# Spectrograms


def test_transform_is_that_of_torch():
    x = np.random.default_rng(0).standard_normal(4_000)
    expected = torch.stft(
        torch.from_numpy(x), 512, 128, window=torch.hann_window(512).double(), pad_mode="constant", return_complex=True
    )
    np.testing.assert_allclose(stft(x, 512), expected.numpy(), atol=1e-5)
    inverse = istft(stft(x, 512), 512)
    np.testing.assert_allclose(inverse, x[: len(inverse)], atol=1e-10)
    assert len(inverse) == 31 * 128


@pytest.mark.parametrize(("rate", "size"), [(8_000, 512), (16_000, 1024), (44_100, 2048)])
def test_filters_are_triangles_in_mel(rate, size):
    assert frame_size(rate) == size
    filters = mel_filters(rate, size)
    np.testing.assert_allclose(filters.sum(1), 1)
    peaks = filters.argmax(1) * rate / size
    mels = 2595 * np.log10(1 + peaks / 700)
    steps = 2595 * math.log10(1 + rate / 2 / 700) / (MELS + 1)
    tolerance = 1127 / (700 + peaks) * rate / size  # half the distance of two frequencies, twice
    assert (np.abs(mels - steps * np.arange(1, MELS + 1)) <= tolerance).all()


def test_a_tone_is_at_its_frequency():
    spectrogram = log_mel(tone(1_000), RATE)
    assert spectrogram.shape == (MELS, 1 + 4_000 // 128) and spectrogram.dtype == np.float32
    filters = mel_filters(RATE, 512)
    assert spectrogram[:, 10].argmax() == filters[:, 64].argmax()  # 1,000 Hz are 64 times 8,000 / 512
    silence = log_mel(np.zeros(1_000), RATE)
    assert (silence == np.float32(math.log(FLOOR))).all()


def test_magnitudes_of_a_mel_spectrogram():
    filters, rng = mel_filters(RATE, 512), np.random.default_rng(0)
    mel = filters @ rng.random((257, 5))
    magnitude = linear_magnitude(mel, filters)
    assert (magnitude >= 0).all()
    np.testing.assert_allclose(filters @ magnitude, mel, rtol=0.05)


def test_phases_are_found():
    """Griffin and Lim bring the magnitudes of the sound near to those that are given."""
    x = tone(440) + tone(1_300) * np.linspace(0, 1, 4_000)
    magnitude = np.abs(stft(x, 512))
    again = griffin_lim(magnitude, 512, 0)

    def error(sound):
        return np.linalg.norm(np.abs(stft(sound, 512))[:, :32] - magnitude[:, :32]) / np.linalg.norm(magnitude)

    rng = np.random.default_rng(0)
    random = istft(magnitude * np.exp(2j * math.pi * rng.random(magnitude.shape)), 512)
    assert error(again) < 0.1 < 0.4 < error(random)
    assert np.array_equal(again, griffin_lim(magnitude, 512, 0))


def test_grey_levels():
    """Silence is black, a tone of amplitude 1 is nearly white, and high frequencies are at the top."""
    x = np.stack([log_mel(tone(3_000), RATE)[None], log_mel(np.zeros(4_000), RATE)[None]])
    images = grey_levels(x, RATE)
    assert images.shape == (2, MELS, x.shape[3], 1) and images.dtype == np.uint8
    assert images[1].max() == 0 and 190 < images[0].max() <= 255
    assert images[0, :, 10, 0].argmax() == MELS - 1 - x[0, 0, :, 10].argmax() < 12


def test_sound_of_a_spectrogram():
    sound = to_sound(log_mel(tone(1_000), RATE), RATE)
    assert abs(np.abs(np.fft.rfft(sound)).argmax() * RATE / len(sound) - 1_000) < 20
    assert np.abs(sound).max() == pytest.approx(0.5, abs=0.25)
    assert np.abs(to_sound(np.full((MELS, 9), math.log(FLOOR)), RATE)).max() < 1e-6
    assert np.isfinite(to_sound(np.full((MELS, 9), 1e4), RATE)).all()
    for spectrogram, rate in ((np.zeros((MELS - 1, 9)), RATE), (np.zeros((MELS, 9)), 3)):
        with pytest.raises(VaezooError):
            to_sound(spectrogram, rate)
    with pytest.raises(VaezooError, match="sample rate"):
        DataSpec(name="x", shape=(64,), sample_rate=RATE)


# Folders


def test_folders_are_split_by_file(folder):
    write_tones("d", seconds=1.2)
    write("d/sub/x.wav", 100 * tone(500, 0.1))
    Path("d/.hidden.wav").write_bytes(b"")
    data = load_data("d", kind="sound")
    assert data.spec.shape == (1, MELS, 32) and data.spec.sample_rate == RATE and data.spec.kind == "real"
    assert data.spec.likelihood == "gaussian:optimal" and data.test is None
    train, valid = ({name.partition("@")[0] for name in split.names} for split in (data.train, data.valid))
    assert len(train | valid) == 21 and not train & valid and len(valid) == 2
    assert data.valid.names[:3] == ("00.wav", "00.wav@0.51", "00.wav@0.70")
    assert abs(float(data.train.x.mean())) < 1e-4
    x = data.spec.scaling.invert(data.train.x[-1:].numpy())[0, 0]
    assert x[:, 12:] == pytest.approx(math.log(FLOOR), abs=1e-3)  # filled up with silence
    again = load_data(data.source.data, kind="sound")
    assert again.spec == data.spec and again.train.x.equal(data.train.x)
    new = find_examples(data.spec, "d/sub/x.wav")
    assert new.names.tolist() == ["x.wav"] and new.split.x.numpy() == pytest.approx(data.train.x[-1:].numpy())
    assert len(find_examples(data.spec, "d", stride=8)) > len(find_examples(data.spec, "d"))


def test_changes_are_said(folder):
    write_tones("d", 4)
    write("d/x.wav", 16_000 * tone(500, rate=16_000), 16_000)
    write("d/y.wav", np.stack([9_000 * tone(700), 0 * tone(700)], 1), channels=2)
    with pytest.raises(InputError, match="16,000 samples in a second") as e:
        load_data("d", kind="sound")
    assert e.value.hint == "give --sample-rate 8000"
    with pytest.warns(VaezooWarning) as record:
        data = load_data("d", kind="sound", sample_rate=8_000, window=16)
    (text,) = [str(w.message) for w in record]
    assert (
        "of 6 sound files, 1 from 16,000 to 8,000 samples" in text and "1 from several channels to their mean" in text
    )
    assert data.spec.shape == (1, MELS, 16)


@pytest.mark.parametrize(
    ("data", "options", "words"),
    [
        ("one", {}, "has 1 sound files"),
        ("empty", {}, "no sound files in folder"),
        ("one/00.wav", {}, "is not a folder of sound files"),
        ("d", {"sample_rate": 10}, "sample rate of 10 is out of range"),
        ("d", {"time_column": "t"}, "has no columns"),
        ("d", {"scale": "unit"}, "does not lie in [0, 1]"),
        ("d", {"kind": "series", "sample_rate": RATE}, "a sample rate is that of sound"),
        ("digits", {}, "--kind sound has no effect on 'digits'"),
        ("d", {"image_size": 16}, "cannot be resized"),
        ("bad", {}, "x.wav' cannot be read"),
        ("d", {"label_pattern": "("}, "is not a regular expression"),
        ("d", {"label_pattern": "[0-9]"}, "has no group in brackets"),
        ("d", {"label_pattern": "0([0-1])"}, "'02.wav' does not match the label pattern"),
        ("d", {"label_pattern": "(0)", "kind": "series"}, "reads the names of sound files"),
        ("parts", {}, "only train has class 'a'"),
    ],
)
def test_what_is_refused(data, options, words, folder):
    write_tones("d", 3)
    write_tones("one", 1)
    write_tones("bad", 2)
    write_tones("parts/train/a", 3)
    write_tones("parts/test/b", 3)
    Path("bad/x.wav").write_bytes(b"RIFF")
    Path("empty").mkdir()
    with pytest.raises(VaezooError) as e:
        load_data(data, **{"kind": "sound", **options})
    assert words in e.value.message and e.value.hint


# Labels


def test_folders_are_classes(folder):
    for name in ("low", "high"):
        write_tones(f"d/{name}", 10, 0.7)
    data = load_data("d", kind="sound")
    assert data.spec.class_names == ("high", "low") and data.spec.classes == (2,)
    for split in (data.train, data.valid):
        assert split.y.tolist() == [int(name.startswith("low")) for name in split.names]
    write_tones("new/low", 2, 0.7)
    assert find_examples(data.spec, "new").split.y.tolist() == [0] * 4  # numbered by its own classes
    write_tones("d", 1)
    assert load_data("d", kind="sound").spec.classes == ()  # files beside folders: these are no classes


def test_a_held_out_speaker(folder):
    for part, speaker in (("train", "ann"), ("train", "bob"), ("test", "eve")):
        for digit in range(5):
            write(f"d/{part}/{digit}_{speaker}.wav", 9_000 * tone(300 + 100 * digit))
    data = load_data("d", kind="sound", label_pattern=r"(\d)_([a-z]+)")
    assert len(data.train) == 9 and len(data.valid) == 1
    assert data.test.names == tuple(f"test/{digit}_eve.wav" for digit in range(5))
    assert data.spec.classes == (5, 3) and data.spec.label_names == (tuple("01234"), ("ann", "bob", "eve"))
    assert data.test.y.tolist() == [[digit, 2] for digit in range(5)]
    digits = load_data("d", kind="sound", label_pattern=r"/(\d)")
    assert digits.test.y.tolist() == [*range(5)] and digits.spec.class_names == tuple("01234")


def test_labels_of_new_files_have_the_numbers_of_the_training(folder):
    for speaker in ("ann", "bob"):
        for digit in range(5):
            write(f"d/{digit}_{speaker}.wav", 9_000 * tone(300 + 100 * digit))
    pattern = r"(\d)_([a-z]+)"
    data = load_data("d", kind="sound", label_pattern=pattern)
    options = {"hidden": "8", "latent_dim": 2}
    run = train("cvae", data, options=options, config=TrainConfig(steps=1, batch_size=4), out="r")
    write("new/3_bob.wav", tone(500))
    examples = load_examples(run, "new", label_pattern=pattern)
    assert examples.split.y.tolist() == [[3, 1]]
    with pytest.raises(UnsupportedDataError, match="the model is given labels"):
        load_examples(run, "new")
    with pytest.raises(VaezooError, match="reads the names of new sound files"):
        load_examples(run, label_pattern=pattern)
    assert run.load_data().spec == data.spec
    samples = run.sample(2, label="3,bob")
    assert np.array_equal(samples, run.sample(2, y=np.array([[3, 1]] * 2)))
    with pytest.raises(VaezooError, match="unknown label 'bab'") as e:
        run.sample(2, label="3,bab")
    assert "bob" in e.value.hint


# Waveforms


def test_waveforms_are_windows_of_samples(folder):
    write_tones("d", 12, 0.2)
    data = load_data("d", kind="waveform", window=1_000, scale="none")
    assert data.spec.shape == (1, 1_000) and data.spec.sample_rate == RATE and data.spec.kind == "real"
    assert data.spec.likelihood == "gaussian:optimal"
    assert data.valid.names[:2] == ("00.wav", "00.wav@0.0750")
    samples = read_sound(Path("d/00.wav"))[0][:, 0]
    assert np.array_equal(data.valid.x[0, 0], samples[:1_000])
    assert np.array_equal(data.valid.x[1, 0], samples[600:])  # the last window ends with the file
    write("x.wav", 16_000 * tone(500, 0.1))
    new = find_examples(data.spec, "x.wav")
    assert new.split.x.shape == (1, 1, 1_000) and (new.split.x[..., 800:] == 0).all()
    assert len(find_examples(data.spec, "d", stride=100)) > len(find_examples(data.spec, "d"))
    default = load_data("d", kind="waveform")
    assert default.spec.shape == (1, 8_192) and default.spec.scaling.name == "standardize"
