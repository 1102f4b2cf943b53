"""Series from arrays, folders and recordings: axes, windows, scaling, and errors that name a place."""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch

import vaezoo
from vaezoo import DataSpec, VaezooError, from_arrays, load_data
from vaezoo.data.inference import find_examples
from vaezoo.data.series.windows import Windows, cut, part_borders, window_starts
from vaezoo.errors import InputError, UnsupportedDataError

RNG = np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def recording(n=200):
    """Returns two channels, of which each value tells its step."""
    steps = np.arange(n, dtype=float)
    return np.stack([100 + steps, -3 * steps])


def write_csv(path, values, times=None, names=("up", "down"), time_column="when"):
    times = range(values.shape[1]) if times is None else times
    rows = [",".join(map(str, (*row[:1], time, *row[1:]))) for time, row in zip(times, values.T.tolist(), strict=True)]
    Path(path).write_text("\n".join([",".join((names[0], time_column, *names[1:])), *rows]) + "\n")


# Arrays


@pytest.mark.parametrize(
    ("shape", "expected"), [((30, 12), (1, 12)), ((30, 3, 12), (3, 12)), ((30, 1, 12), (1, 12)), ((2, 2, 2), (2, 2))]
)
def test_axes_of_arrays(shape, expected, folder):
    x = RNG.normal(size=shape) * 50
    np.save("x.npy", x)
    for data in (from_arrays(x, kind="series"), load_data("x.npy", kind="series")):
        assert data.spec.shape == expected and data.spec.kind == "real" and data.spec.likelihood == "gaussian:optimal"
        values = data.spec.scaling.invert(data.train.x.numpy())
        assert values[0] == pytest.approx(x[1].reshape(expected), rel=1e-4)


def test_three_axes_are_images_without_the_option():
    x = RNG.random((30, 8, 9))
    assert from_arrays(x).spec.shape == (1, 8, 9)
    assert from_arrays(x, kind="series").spec.shape == (8, 9)


@pytest.mark.parametrize("shape", [(30,), (30, 1, 8, 8), (30, 1), (0, 8), (30, 2, 1)])
def test_other_axes_are_refused(shape):
    with pytest.raises(InputError, match="has the shape") as e:
        from_arrays(np.zeros(shape), kind="series")
    assert "(N, channels, time)" in e.value.hint


def test_archives_have_labels_and_a_test_split(folder):
    x, y = RNG.normal(size=(40, 2, 9)), np.arange(40) % 3
    np.savez("x.npz", x_train=x, y_train=y, x_test=x[:5], y_test=y[:5])
    data = load_data("x.npz", kind="series")
    assert data.spec.classes == (3,) and len(data.test) == 5 and data.test.y.tolist() == y[:5].tolist()


def test_scaling_is_by_channel():
    x = RNG.normal([[5.0], [-2e6]], [[0.01], [3e5]], (200, 2, 16))
    data = from_arrays(x, kind="series")
    mean, deviation = data.train.x.mean((0, 2)), data.train.x.std((0, 2), correction=0)
    assert mean.tolist() == pytest.approx([0, 0], abs=1e-4) and deviation.tolist() == pytest.approx([1, 1], rel=1e-4)
    assert (data.train.x < 0).any()
    none = from_arrays(x, kind="series", scale="none")
    assert none.spec.offset == () and none.train.x[0] == pytest.approx(x[1].astype(np.float32))
    unit = from_arrays(RNG.random((30, 8)), kind="series", scale="unit")
    assert unit.spec.kind == "unit" and unit.spec.likelihood == "gaussian:optimal"
    bits = from_arrays(RNG.integers(0, 2, (30, 8)), kind="series", scale="unit")
    assert bits.spec.likelihood == "bernoulli"


def test_constant_channels_become_zero():
    x = RNG.normal(size=(30, 2, 8))
    x[:, 1] = 7.5
    data = from_arrays(x, kind="series")
    assert (data.train.x[:, 1] == 0).all() and data.spec.factor[1] == 1


def test_nan_in_arrays_is_named():
    x = RNG.normal(size=(30, 2, 8))
    x[4, 1, 3] = np.nan
    with pytest.raises(InputError, match="1, the first in example 4"):
        from_arrays(x, kind="series")


# Folders


def test_folders_of_series(folder):
    Path("d").mkdir()
    x = RNG.normal(size=(12, 10))
    for i in range(12):
        np.save(f"d/{i:02}.npy", x[i])
    Path("d/.hidden.npy").write_bytes(b"")
    data = load_data("d", kind="series")
    assert data.spec.shape == (1, 10) and data.train.names[0] == "01.npy" and data.valid.names == ("00.npy",)
    examples = find_examples(data.spec, "d")
    assert examples.names.tolist() == [f"{i:02}.npy" for i in range(12)]
    assert data.spec.scaling.invert(examples.split.x.numpy())[:, 0] == pytest.approx(x, abs=1e-5)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros(9), "'d/b.npy' has the shape (9,), but 'a.npy' has (1, 10)"),
        (np.zeros((2, 10)), "'d/b.npy' has the shape (2, 10)"),
        (np.zeros((1, 2, 5)), "'d/b.npy' has the shape (1, 2, 5)"),
        (np.zeros(0), "'d/b.npy' has the shape (0,)"),
        (np.array([1.0, np.nan] * 5), "'d/b.npy' has values that are NaN or infinite: 5, the first in row 1"),
        (np.array(["a"] * 10), "'d/b.npy' cannot be read"),
    ],
)
def test_wrong_files_in_folders_are_named(array, words, folder):
    Path("d").mkdir()
    np.save("d/a.npy", np.zeros(10))
    np.save("d/b.npy", array)
    with pytest.raises(InputError) as e:
        load_data("d", kind="series")
    assert words in e.value.message.replace(f"{folder}/", "") and e.value.hint


def test_folders_without_series(folder):
    Path("d").mkdir()
    with pytest.raises(InputError, match=r"has no \.npy files"):
        load_data("d", kind="series")


# Windows


@pytest.mark.parametrize(
    ("begin", "end", "length", "stride", "expected"),
    [
        (0, 10, 4, 4, [0, 4, 6]),
        (0, 8, 4, 4, [0, 4]),
        (5, 12, 4, 1, [5, 6, 7, 8]),
        (0, 4, 4, 9, [0]),
        (3, 12, 2, 5, [3, 8, 10]),
    ],
)
def test_starts_of_windows(begin, end, length, stride, expected):
    assert window_starts(begin, end, length, stride).tolist() == expected


def test_means_over_windows():
    """The mean at a step is that over the windows that hold it, counted one by one."""
    windows = Windows(np.array([0, 2, 3, 8]), 4, np.arange(13).astype(str))
    values = np.array([1.0, -2.0, 4.0, 8.0])
    held = [[i for i, s in enumerate(windows.start) if s <= t < s + 4] for t in range(13)]
    assert windows.counts().tolist() == [len(h) for h in held]
    expected = [values[h].mean() if h else np.nan for h in held]
    np.testing.assert_allclose(windows.means(values), expected)
    np.testing.assert_allclose(windows.select(np.array([3, 1])).means(values[[3, 1]])[[2, 8, 12]], [-2, 8, np.nan])


@pytest.mark.parametrize("stride", [None, 1, 7])
@pytest.mark.parametrize("file", ["r.csv", "r.npy"])
def test_recordings_are_split_by_time(stride, file, folder):
    """The last part is held out, each step of the recording is in one part only, and none is lost."""
    values = recording()
    write_csv("r.csv", values)
    np.save("r.npy", values)
    options = {"time_column": "when"} if file == "r.csv" else {}
    data = load_data(file, window=16, stride=stride, **options)
    assert (
        data.spec.shape == (2, 16)
        and data.spec.kind == "real"
        and data.spec.time_column == options.get("time_column", "")
    )
    assert data.spec.column_names == (("up", "down") if file == "r.csv" else ())
    held = []
    for split in (data.train, data.valid, data.test):
        steps = data.spec.scaling.invert(split.x.numpy())[:, 0] - 100
        assert np.diff(steps, axis=1) == pytest.approx(1, abs=1e-3)
        assert steps[:, 0] == pytest.approx(split.windows.start, abs=1e-3)
        assert split.names == tuple(map(str, split.windows.start))
        held.append(set(steps.round().astype(int).ravel().tolist()))
    assert [(min(h), max(h), len(h)) for h in held] == [(0, 159, 160), (160, 179, 20), (180, 199, 20)]
    again = load_data(data.source.data, **{k: getattr(data.source, k) for k in ("window", "stride", "time_column")})
    assert again.spec == data.spec and again.train.x.equal(data.train.x)


def test_scaling_of_windows_sees_the_training_part_only(folder):
    values = recording()
    values[:, 160:] = 1e9
    np.save("r.npy", values)
    data = load_data("r.npy", window=16)
    assert data.train.x.mean((0, 2)).tolist() == pytest.approx([0, 0], abs=1e-5)
    assert max(data.spec.offset) < 1e3


def test_borders():
    assert part_borders("x", 1000, 16) == (800, 900)
    assert part_borders("x", 48, 16) == (16, 32)
    for steps in (47, 16):
        with pytest.raises(InputError, match="too few for windows of 16") as e:
            part_borders("x", steps, 16)
        assert f"--window {steps // 3}" in e.value.hint
    with pytest.raises(InputError, match="a window of 16 steps is longer than x, which has 15"):
        part_borders("x", 15, 16)


def test_windows_that_need_too_much_memory(monkeypatch):
    monkeypatch.setattr("vaezoo.data.series.windows.machine_memory", lambda: 1000)
    with pytest.raises(InputError, match="GiB") as e:
        cut(np.zeros((1, 100)), np.arange(90), 8)
    assert "--stride" in e.value.hint


def test_new_recordings_are_cut_whole(folder):
    write_csv("r.csv", recording())
    data = load_data("r.csv", time_column="when", window=16)
    new = recording(50)
    dates = [(datetime(2024, 2, 27) + timedelta(days=i)).isoformat() for i in range(50)]
    write_csv("new.csv", new[::-1], dates, names=("down", "up"))
    examples = find_examples(data.spec, "new.csv", stride=5)
    assert examples.windows.start.tolist() == [*range(0, 35, 5), 34]
    assert examples.names[:2].tolist() == ["2024-02-27T00:00:00", "2024-03-03T00:00:00"]
    values = data.spec.scaling.invert(examples.split.x.numpy())
    assert values[1] == pytest.approx(new[:, 5:21], abs=1e-3)  # channels by their names
    assert len(find_examples(data.spec, "new.csv")) == 4  # 0, 16, 32 and 34
    np.save("new.npy", new)
    assert find_examples(data.spec, "new.npy", stride=5).split.x == pytest.approx(examples.split.x)
    np.save("many.npy", RNG.normal(size=(3, 2, 16)))
    assert find_examples(data.spec, "many.npy").windows is None
    few = examples.select(torch.tensor([7, 0]))
    assert few.windows.start.tolist() == [34, 0] and few.names[0] == dates[34]


@pytest.mark.parametrize(
    ("names", "words"),
    [(("up", "left"), "lacks the column 'down'"), (("up", "down", "more"), "has the column 'more'")],
)
def test_new_recordings_have_the_channels(names, words, folder):
    write_csv("r.csv", recording())
    data = load_data("r.csv", time_column="when", window=16)
    write_csv("new.csv", RNG.normal(size=(len(names), 50)), names=names)
    with pytest.raises(UnsupportedDataError, match=words):
        find_examples(data.spec, "new.csv")
    write_csv("short.csv", recording(15))
    with pytest.raises(InputError, match="a window of 16 steps is longer"):
        find_examples(data.spec, "short.csv")
    arrays = DataSpec(name="x", shape=(2, 16), kind="real", likelihood="gaussian")
    with pytest.raises(UnsupportedDataError, match="not trained on a file with a column of times"):
        find_examples(arrays, "r.csv")


# Recordings in CSV files

GOOD = "t,a,b\n1,2,3\n2,4,5\n3,6,7\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "'r.csv' is empty"),
        ("\n\n", "'r.csv' is empty"),
        ("t,a,b\n", "has a header but no rows"),
        ("a,b\n1,2\n", "has no column 't'"),
        ("t\n1\n", "has no column besides 't'"),
        ("t,a,a\n1,2,3\n", "has two columns 'a', line 1"),
        ("t,a,\n1,2,3\n", "has no name for column 3, line 1"),
        ("t,a,b\n1,2,3\n2,4\n", "line 3: 2 values for 3 columns"),
        ("t,a,b\n1,2,3\n\n2,4,5,6\n", "line 4: 4 values for 3 columns"),
        ("t,a,b\n1,2,3\n2,4,\n", "line 3, column 'b': the value is missing"),
        ("t,a,b\n1,2,3\n2,NaN,1\n", "line 3, column 'a': the value is missing"),
        ("t,a,b\n1,2,3\n2,inf,1\n", "line 3, column 'a': 'inf' is not a finite number"),
        ("t,a,b\n1,2,3\n2,1e999,1\n", "line 3, column 'a': '1e999' is not a finite number"),
        ("t,a,b\n1,2,red\n", "line 2, column 'b': 'red' is not a finite number"),
        ("t,a,b\n1,2,1_000\n", "line 2, column 'b': '1_000' is not a finite number"),
        ('t,a,b\n1,2,"3,5"\n', "line 2, column 'b': '3,5' is not a finite number"),
        ("t,a,b\n1,2,3\n1,4,5\n", "line 3, column 't': 1 does not come after 1"),
        ("t,a,b\n1,2,3\n2,4,5\n1.5,4,5\n", "line 4, column 't': 1.5 does not come after 2"),
        ("t,a,b\n1,2,3\n2,4,5\n3,4,5\n5,4,5\n", "line 5, column 't': a gap of 2 steps between 3 and 5"),
        ("t,a,b\n,2,3\n", "line 2, column 't': '' is not a number or an ISO date"),
        ("t,a,b\n1,2,3\n2024-01-01,2,3\n", "line 3, column 't': '2024-01-01' is not a number"),
        ("t,a,b\n2024-01-01,2,3\n2,2,3\n", "line 3, column 't': '2' is not an ISO date"),
        ("t,a,b\n2024-01-01,2,3\n2024-01-02T00:00Z,2,3\n", "line 3, column 't': '2024-01-02T00:00Z' mixes dates"),
        ("t,a,b\n2024-02-28,1,1\n2024-02-29,1,1\n2024-03-01,1,1\n2024-03-03,1,1\n", "a gap of 2 steps"),
        ("t,a,b\n2024-02-30,1,1\n", "'2024-02-30' is not a number or an ISO date"),
        ('t,a,b\n1,2,"3', "'r.csv' cannot be read"),
        ("t,a,b\n1,2,\x00\n", "line 2, column 'b'"),
        ("t,a,b\n1" + "0" * 70 + ",2,3\n", "line 2, column 't'"),
    ],
)
def test_wrong_recordings_name_the_place(text, words, folder):
    Path("r.csv").write_text(text)
    with pytest.raises(InputError) as e:
        load_data("r.csv", time_column="t", window=2)
    assert words in e.value.message.replace(f"{folder}/", "") and e.value.hint
    assert e.value.message.isprintable()


def test_bytes_that_are_no_text(folder):
    Path("r.csv").write_bytes(b"t,a\n1,\xff\xfe\n")
    with pytest.raises(InputError, match="cannot be read"):
        load_data("r.csv", time_column="t", window=2)


def test_what_recordings_may_hold(folder):
    """A byte-order mark, quotes, spaces, signs, blank lines, and small changes of the step."""
    rows = [f'"{i + 0.01 * (i % 2)}", +{i}e0 ,-.5\r\n' for i in range(30)]
    Path("r.csv").write_bytes(b"\xef\xbb\xbf" + ('t,"a, b",c\r\n' + "\r\n".join(rows) + "\r\n\r\n").encode())
    data = load_data("r.csv", time_column="t", window=5, scale="none")
    assert data.spec.column_names == ("a, b", "c")
    assert data.train.x[0].tolist() == [[0, 1, 2, 3, 4], [-0.5] * 5]
    assert data.train.names[:2] == ("0.0", "5.01")


@pytest.mark.parametrize(
    ("data", "options", "words"),
    [
        ("r.csv", {"window": 4}, "needs --time-column NAME"),
        ("r.csv", {"time_column": "when"}, "needs --window N"),
        ("r.csv", {"kind": "series"}, "needs --time-column NAME"),
        ("r.npy", {"window": 4, "time_column": "when"}, "has no columns"),
        ("r.npy", {"stride": 4}, "a stride needs a window"),
        ("r.npy", {"window": 1}, "window"),
        ("r.npy", {"window": 4, "stride": 0}, "stride"),
        ("r.npy", {"window": 201}, "is longer than"),
        ("many.npy", {"window": 4}, "windows are cut from one recording"),
        ("r.npy", {"kind": "serie"}, "no kind of data named 'serie'"),
        ("r.npy", {"kind": 3}, "no kind of data named '3'"),
        ("r.csv", {"time_column": 3, "window": 4}, "time column 3 is not a name"),
        ("digits", {"kind": "series"}, "--kind series has no effect on 'digits'"),
        ("sines", {"window": 4}, "--window has no effect on 'sines'"),
        ("d", {"window": 4}, "is a folder and not one recording"),
        ("x.txt", {"window": 4}, "holds no series"),
        ("r.npy", {"window": 4, "image_size": 16}, "cannot be resized"),
        ("r.npy", {"window": 4, "stream": True}, "cannot be streamed"),
        ("none.csv", {"window": 4, "time_column": "t"}, "no file or folder"),
        ("nan.npy", {"window": 4}, "NaN or infinite: 1, the first in row 7, column 1"),
        ("r.npy", {"window": 4, "scale": "unit"}, "has values from"),
    ],
)
def test_options_that_do_not_fit(data, options, words, folder):
    write_csv("r.csv", recording())
    values = recording()
    np.save("r.npy", values)
    values[1, 7] = np.nan
    np.save("nan.npy", values)
    np.save("many.npy", np.zeros((5, 2, 9)))
    Path("d").mkdir()
    Path("x.txt").write_text("1")
    with pytest.raises(VaezooError) as e:
        load_data(data, **options)
    assert words in e.value.message and e.value.hint


def test_stride_of_data_without_recording(digits):
    vae = vaezoo.create_model("mlp-vae", digits.spec)
    for data in ("digits", digits):
        with pytest.raises(VaezooError, match="stride"):
            vaezoo.load_examples(vae, data, stride=2)
