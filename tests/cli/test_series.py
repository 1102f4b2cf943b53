"""Windows of a recording, from `vaezoo train` to scores of times, and what the options refuse."""

import csv
import io
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

import vaezoo
from vaezoo.data.series.windows import Windows
from vaezoo.evaluation.score import Scores

TRAIN = ("train", "mlp-vae", "-o", "hidden=8", "--steps", 6, "--eval-every", 6, "--batch-size", 20, "--device", "cpu")
WINDOWS = ("--data", "r.csv", "--time-column", "time", "--window", 12, "--stride", 4)


def write(path, steps, seed=0, first=datetime(2024, 5, 1)):
    rng = np.random.default_rng(seed)
    rows = [f"{(first + timedelta(hours=i)).isoformat()},{20 + rng.normal():.3f},{i}" for i in range(steps)]
    Path(path).write_text("\n".join(["time,heat,count", *rows]))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a run on windows of a recording."""
    folder = tmp_path_factory.mktemp("series")
    write(folder / "r.csv", 200)
    data = vaezoo.load_data(folder / "r.csv", time_column="time", window=12, stride=4)
    config = vaezoo.TrainConfig(steps=6, eval_every=6, batch_size=20, device="cpu")
    vaezoo.train("mlp-vae", data, options={"hidden": "8"}, config=config, out=folder / "run")
    return folder / "run"


def table(text):
    return [*csv.DictReader(io.StringIO(text))]


def test_training_says_how_it_splits(inside, run):
    write("r.csv", 200)
    code, _, err = run(*TRAIN, *WINDOWS, "--out", "run")
    assert code == 0, err
    text = " ".join(err.split())
    assert "split by time, none crosses a border: training 2024-05-01T00:00:00 to 2024-05-07T15:00:00" in text
    assert "test 2024-05-08T12:00:00 to 2024-05-09T07:00:00" in text
    source = vaezoo.load("run").source
    assert (source.time_column, source.window, source.stride, source.scale) == ("time", 12, 4, "standardize")
    code, _, err = run(*TRAIN, "--resume", "run", *WINDOWS[:-1], 6)
    assert code == 2 and "was started with --stride 4, not 6" in err
    assert run(*TRAIN, "--resume", "run", *WINDOWS)[0] == 0


def test_run_loads_its_windows_again(trained):
    run = vaezoo.load(trained)
    data = run.load_data()
    assert data.spec == run.data and run.data.column_names == ("heat", "count")
    examples = vaezoo.load_examples(run, part="all")
    assert len(examples) == len(examples.windows.start) == len(data.train) + len(data.valid) + len(data.test)
    assert examples.names.tolist() == examples.windows.times[examples.windows.start].tolist()


def test_scores_of_times_are_means_over_windows(trained, run, inside):
    """Each row is the mean of the rows of its windows, found by their times."""
    write("new.csv", 31, seed=1, first=datetime(2025, 2, 27))
    arguments = ("score", trained, "--data", "new.csv", "--stride", 5, "--threshold", 1e9)
    code, out, err = run(*arguments)
    assert code == 0, err
    windows = table(out)
    assert [row["name"] for row in windows[:2]] == ["2025-02-27T00:00:00", "2025-02-27T05:00:00"]
    code, out, err = run(*arguments, "--by-time")
    assert code == 0, err
    times = table(out)
    assert len(times) == 31 and [*times[0]] == [
        *("time", "windows", "neg_elbo", "reconstruction", "kl", "anomaly"),
    ]
    for row in times:
        moment = datetime.fromisoformat(row["time"])
        holding = [w for w in windows if 0 <= (moment - datetime.fromisoformat(w["name"])).total_seconds() < 12 * 3600]
        assert int(row["windows"]) == len(holding) > 0 and row["anomaly"] == "0"
        for name in ("neg_elbo", "reconstruction", "kl"):
            assert float(row[name]) == pytest.approx(np.mean([float(w[name]) for w in holding]), rel=1e-5)


def test_held_out_part_has_its_times(trained):
    scores = vaezoo.score(vaezoo.load(trained), quantile=0.5)
    rows = scores.by_time()
    assert rows["time"][0] == "2024-05-08T12:00:00" and len(rows["time"]) == 20
    assert set(rows["anomaly"]) <= {0, 1} and np.isfinite(rows["neg_elbo"]).all()


def test_names_of_times_do_not_hide_scores():
    windows = Windows(np.array([0]), 2, np.array(["1", "2", "3"]), "kl")
    scores = Scores(
        names=np.array(["1"]),
        neg_elbo=np.array([3.0]),
        reconstruction=np.array([1.0]),
        kl=np.array([2.0]),
        windows=windows,
    )
    rows = scores.by_time()
    assert rows["time_kl"].tolist() == ["1", "2"] and rows["kl"].tolist() == [2.0, 2.0]


def test_other_commands_take_recordings(trained, run_ok, inside):
    write("new.csv", 31, seed=1)
    run_ok("encode", trained, "--data", "new.csv", "--stride", 6, "--out", "z.npz")
    codes = np.load("z.npz")
    assert codes["mu"].shape[0] == len(codes["name"]) == 5 and codes["name"][1] == "2024-05-01T06:00:00"
    run_ok("reconstruct", trained, "--data", "new.csv", "--out", "x.npz")
    x = np.load("x.npz")["x"]
    assert x.shape == (3, 2, 12) and abs(x[:, 0].mean() - 20) < 5  # in the units of the data
    run_ok("eval", trained)
    run_ok("sample", trained, "-n", 3, "--out", "s.npy")
    assert np.load("s.npy").shape == (3, 2, 12)


@pytest.mark.slow
def test_exports_take_recordings(run, run_ok, inside):
    write("r.csv", 200)
    write("new.csv", 31, seed=1)
    run_ok(*TRAIN, *WINDOWS, "--likelihood", "gaussian:0.5", "--out", "r")
    run_ok("export", "r", "--onnx", "--out", "e")
    assert vaezoo.runtime.load("e").data["time_column"] == "time"
    run_ok("verify", "e")
    arguments = ("--data", "new.csv", "--stride", 5, "--by-time")
    (_, ours, _), (code, out, err) = run("score", "r", *arguments), run("score", "e", *arguments)
    assert code == 0, err
    for row, expected in zip(table(out), table(ours), strict=True):
        assert row["time"] == expected["time"] and row["windows"] == expected["windows"]
        assert float(row["kl"]) == pytest.approx(float(expected["kl"]), rel=1e-3)
        assert float(row["neg_elbo"]) == pytest.approx(float(expected["neg_elbo"]), rel=0.05)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--data", "x.npy", "--by-time"), "is not a recording"),
        (("--data", "bad.csv"), "line 3, column 'heat': the value is missing"),
        (("--data", "other.csv"), "has no column 'time'"),
        (("--stride", 3), "a stride cuts the recording of a file"),
        (("--data", "sines", "--stride", 3), "a stride has no effect on 'sines'"),
        (("--data", "new.csv", "--stride", 0), "stride"),
        (("--data", "new.csv", "--part", "test"), "has no part test"),
    ],
)
def test_errors_name_the_place(arguments, words, trained, run, inside):
    np.save("x.npy", np.zeros((3, 2, 12)))
    write("new.csv", 31)
    Path("bad.csv").write_text("time,heat,count\n1,2,3\n2,,4\n")
    Path("other.csv").write_text("when,heat,count\n1,2,3\n2,3,4\n")
    code, out, err = run("score", trained, *arguments, "--out", "s.csv")
    assert code != 0 and words in err and "hint: " in err and not Path("s.csv").exists() and out == ""
