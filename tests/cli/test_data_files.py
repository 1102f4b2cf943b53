"""vaezoo encode, sample and reconstruct as data: each format has the values that the Python functions return."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vaezoo
from vaezoo import TrainConfig, from_arrays, train

pytestmark = pytest.mark.usefixtures("inside")


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    """A run on vectors of nine numbers."""
    data = from_arrays(np.random.default_rng(0).random((40, 9), np.float32))
    folder = tmp_path_factory.mktemp("vectors") / "run"
    return train("mlp-vae", data, options={"latent_dim": 3}, config=TrainConfig(steps=2, batch_size=8), out=folder)


@pytest.fixture
def photos():
    """Five images of one level each, in two folders."""
    for i in range(5):
        path = Path(f"new/{'ab'[i % 2]}/{i}.jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (30, 40), 40 * i).save(path)
    return "new"


def read_csv(path):
    """Returns the columns of a CSV file, numbers as floats."""
    rows = list(csv.DictReader(Path(path).read_text().splitlines()))
    return {name: [row[name] if name == "name" else float(row[name]) for row in rows] for name in rows[0]}


def source_of(kind, trained, shared_export):
    return trained.path if kind == "run" else shared_export().path


def model_of(kind, trained, shared_export):
    return trained if kind == "run" else vaezoo.runtime.load(shared_export().path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["run", "export"])
def test_posteriors_in_each_format(kind, run_ok, trained, shared_export, photos):
    source, model = source_of(kind, trained, shared_export), model_of(kind, trained, shared_export)
    expected = vaezoo.encode(model, photos)
    for suffix in (".npz", ".npy", ".csv"):
        assert run_ok("encode", source, "--data", photos, "--out", f"z{suffix}") == f"z{suffix}\n"
    arrays = np.load("z.npz", allow_pickle=False)
    assert arrays["name"].tolist() == ["a/0.jpg", "a/2.jpg", "a/4.jpg", "b/1.jpg", "b/3.jpg"]
    assert arrays["y"].tolist() == [0, 0, 0, 1, 1] and np.array_equal(arrays["mu"], expected["mu"])
    assert np.array_equal(np.load("z.npy"), expected["mu"])
    table = read_csv("z.csv")
    assert table["name"] == arrays["name"].tolist() and table["y"] == [0, 0, 0, 1, 1]
    dims = range(expected["mu"].shape[1])
    columns = np.array([table[f"logvar_{i}"] for i in dims], np.float32).T
    assert np.array_equal(columns, expected["logvar"])  # all digits that a float32 has


@pytest.mark.slow
def test_own_data_have_a_column_of_parts(run_ok, trained):
    run_ok("encode", trained.path, "--out", "z.npz")
    with np.load("z.npz") as arrays:
        parts, counts = np.unique(arrays["part"], return_counts=True)
        assert dict(zip(parts, counts, strict=True)) == {"train": 9000, "valid": 1000, "test": 2000}
        mu = arrays["mu"][arrays["part"] == "test"]
    run_ok("encode", trained.path, "--part", "test", "--out", "test.npz")
    with np.load("test.npz") as arrays:
        assert "part" not in arrays and np.array_equal(arrays["mu"], mu)


@pytest.mark.parametrize("kind", ["run", "export"])
def test_image_files_have_the_names_of_the_examples(kind, run_ok, trained, shared_export, photos):
    source, model = source_of(kind, trained, shared_export), model_of(kind, trained, shared_export)
    assert run_ok("reconstruct", source, "--data", photos, "--out", "again/").strip() == "again"
    files = sorted(p.relative_to("again").as_posix() for p in Path("again").rglob("*.png"))
    assert files == ["a/0.png", "a/2.png", "a/4.png", "b/1.png", "b/3.png"]
    expected = vaezoo.reconstruct(model, photos)
    with Image.open("again/b/1.png") as image:
        assert np.array_equal(np.asarray(image), np.rint(255 * expected[3, 0]))
    run_ok("sample", source, "-n", 3, "--out", "drawn/")
    assert sorted(p.name for p in Path("drawn").iterdir()) == ["000000.png", "000001.png", "000002.png"]


def test_no_image_file_replaces_another(run, run_ok, trained):
    Path("two").mkdir()
    for suffix in ("png", "jpg"):
        Image.new("L", (28, 28)).save(f"two/0.{suffix}")
    Path("mine").mkdir()
    run_ok("reconstruct", trained.path, "--data", "two", "--out", "mine")  # an empty folder is used
    assert sorted(p.name for p in Path("mine").iterdir()) == ["0-1.png", "0.png"]
    code, _, err = run("sample", trained.path, "--out", "mine/")
    assert code == 5 and "'mine' is not an empty folder" in err
    assert len(list(Path("mine").iterdir())) == 2


@pytest.mark.parametrize("kind", ["run", "export"])
def test_arrays_of_images(kind, run_ok, trained, shared_export, photos):
    source, model = source_of(kind, trained, shared_export), model_of(kind, trained, shared_export)
    run_ok("sample", source, "-n", 1500, "--seed", 4, "--out", "x.npy")
    assert np.array_equal(np.load("x.npy"), vaezoo.sample(model, 1500, seed=4))
    run_ok("reconstruct", source, "--data", photos, "--out", "x.npz")
    with np.load("x.npz") as arrays:
        assert np.array_equal(arrays["x"], vaezoo.reconstruct(model, photos)) and len(arrays["name"]) == 5


def test_seed_and_number_of_samples(trained):
    few, many = vaezoo.sample(trained, 20, seed=4), vaezoo.sample(trained, 2500, seed=4)
    torch.manual_seed(4)
    with torch.no_grad():
        expected = trained.vae.sample(20).numpy()
    assert few == pytest.approx(expected, abs=1e-6)
    assert len(np.unique(many.reshape(2500, -1), axis=0)) == 2500  # no chunk repeats another
    assert not np.array_equal(few, vaezoo.sample(trained, 20, seed=5))


@pytest.mark.parametrize("kind", ["run", "export"])
def test_draws_follow_the_likelihood(kind, run_ok, trained, shared_export):
    """A Bernoulli's draws are bits, and their mean is the mean."""
    source, model = source_of(kind, trained, shared_export), model_of(kind, trained, shared_export)
    z = np.zeros((2000, *trained.vae.latent_shape), np.float32)
    drawn, mean = vaezoo.decode(model, z, draw=True, seed=1), vaezoo.decode(model, z[:1])[0]
    assert np.unique(drawn).tolist() == [0, 1] and drawn.mean(0) == pytest.approx(mean, abs=0.06)
    run_ok("sample", source, "-n", 5, "--draw", "--out", "x.npy")
    assert np.unique(np.load("x.npy")).tolist() == [0, 1]
    assert np.array_equal(np.load("x.npy"), vaezoo.sample(model, 5, draw=True))
    x = np.zeros((3, 28, 28), np.float32)
    assert np.unique(vaezoo.reconstruct(model, x, draw=True)).tolist() == [0, 1]


@pytest.mark.parametrize("kind", ["run", "export"])
def test_latents_of_a_file_are_decoded(kind, run_ok, run, trained, shared_export, photos):
    source, model = source_of(kind, trained, shared_export), model_of(kind, trained, shared_export)
    for file in ("z.npz", "z.npy"):
        run_ok("encode", source, "--data", photos, "--out", file)
        run_ok("sample", source, "--z", file, "--out", "x.npy")
        assert np.load("x.npy") == pytest.approx(vaezoo.reconstruct(model, photos), abs=1e-5)
    for z in (np.zeros((2, 3), np.float32), np.full((2, *trained.vae.latent_shape), np.nan)):
        np.save("bad.npy", z)
        code, _, err = run("sample", source, "--z", "bad.npy")
        assert code == 2 and "the latents" in err and len(err.splitlines()) == 2


def test_tables_of_vectors(run_ok, run, vectors):
    run_ok("sample", vectors.path, "-n", 4, "--out", "x.csv")
    table = read_csv("x.csv")
    assert [*table] == [f"x_{i}" for i in range(9)]
    assert np.array_equal(np.array([*table.values()], np.float32).T, vaezoo.sample(vectors, 4))
    np.save("new.npy", np.random.default_rng(1).random((6, 9)))
    run_ok("reconstruct", vectors.path, "--data", "new.npy", "--out", "again.csv")
    assert [*read_csv("again.csv")][:2] == ["name", "x_0"] and read_csv("again.csv")["name"] == list("012345")


def test_limit_is_that_of_eval(run, run_ok, vectors):
    """Evenly spaced examples, in each command and each function."""
    np.save("new.npy", np.random.default_rng(1).random((6, 9)))
    for command, option in (
        ("encode", "--limit"),
        ("score", "--limit"),
        ("reconstruct", "--limit"),
        ("reconstruct", "-n"),
    ):
        run_ok(command, vectors.path, "--data", "new.npy", option, 3, "--out", "few.csv")
        assert read_csv("few.csv")["name"] == ["0", "2", "4"], command
        code, _, err = run(command, vectors.path, "--data", "new.npy", option, 0, "--out", "none.csv")
        assert code == 2 and "limit is 0" in err and not Path("none.csv").exists()
    every = vaezoo.encode(vectors, "new.npy")["mu"]
    assert vectors.encode("new.npy", limit=3)["mu"] == pytest.approx(every[::2], abs=1e-6)
    assert vectors.reconstruct("new.npy", limit=3) == pytest.approx(vectors.reconstruct("new.npy")[::2], abs=1e-6)
    assert len(vectors.score("new.npy", limit=3).names) == 3


@pytest.mark.slow
def test_outputs_have_the_units_of_the_data(run_ok, inside):
    table = np.random.default_rng(0).normal([200.0, 0.003], [15.0, 0.0001], (60, 2))
    np.save("table.npy", table)
    run_ok(
        "train",
        "mlp-vae",
        "--data",
        "table.npy",
        "--scale",
        "standardize",
        "--steps",
        2,
        "--batch-size",
        8,
        "--out",
        "r",
    )
    model = vaezoo.load("r")
    for x in (
        vaezoo.sample(model, 300),
        vaezoo.reconstruct(model, "table.npy"),
        vaezoo.decode(model, np.zeros((1, 20))),
    ):
        assert x.mean(0) == pytest.approx([200, 0.003], rel=0.1)
    assert vaezoo.sample(model, 300, draw=True).std(0) == pytest.approx([15, 0.0001], rel=0.9)
    run_ok("reconstruct", "r", "--data", "table.npy", "--out", "again.csv")
    assert read_csv("again.csv")["x_0"] == pytest.approx(vaezoo.reconstruct(model, table)[:, 0])
    run_ok("export", "r", "--onnx", "--out", "e")
    assert vaezoo.reconstruct(vaezoo.runtime.load("e"), table) == pytest.approx(
        vaezoo.reconstruct(model, table), rel=1e-3
    )


def test_images_are_no_table(run, trained):
    for out in ("x.csv", "x.parquet", "x.txt"):
        code, _, err = run("sample", trained.path, "--out", out)
        assert code == 2 and f"cannot be written as '{out}'" in err and ".npy" in err and not Path(out).exists()


def test_large_grids_are_refused(run, trained):
    code, _, err = run("sample", trained.path, "-n", 10_001)
    assert code == 2 and "10,001 images are too many for one grid" in err and ".npy" in err


def test_parquet(run_ok, vectors):
    from pyarrow import parquet

    np.savez("new.npz", x=np.random.default_rng(1).random((1200, 9)), y=np.arange(1200) % 3)
    run_ok("encode", vectors.path, "--data", "new.npz", "--out", "z.parquet")
    table = parquet.read_table("z.parquet")
    assert table.column_names[:3] == ["name", "y", "mu_0"] and table.num_rows == 1200
    assert np.array_equal(table["mu_1"].to_numpy(), vaezoo.encode(vectors, "new.npz")["mu"][:, 1])


def test_parquet_needs_pyarrow(run, trained, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    for command in (["encode"], ["score"]):
        code, _, err = run(*command, trained.path, "--out", "z.parquet")
        assert code == 2 and "pyarrow" in err.splitlines()[0] and "parquet" in err.splitlines()[1]


def test_memory_does_not_grow_with_the_number_of_samples(run_ok, vectors, monkeypatch):
    """The chunks of a file are written one after another: none is larger than a thousand rows."""
    from vaezoo.core import result_files

    sizes = []
    append = result_files._append
    monkeypatch.setattr(result_files, "_append", lambda file, x, count: (sizes.append(len(x)), append(file, x, count)))
    run_ok("sample", vectors.path, "-n", 20_000, "--out", "x.npy")
    assert len(sizes) == 20 and max(sizes) == 1000
    assert np.load("x.npy").shape == (20_000, 9)


def test_failed_command_leaves_no_file(run, trained, photos, monkeypatch):
    def fail(*arguments, **keywords):
        yield np.zeros((1, 1, 28, 28), np.float32)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vaezoo.evaluation.outputs.iter_samples", fail)
    for out in ("x.npz", "x.npy", "folder/"):
        code, _, err = run("sample", trained.path, "--out", out)
        assert code == 5 and "No space left" in err
    assert sorted(p.name for p in Path().iterdir()) == ["new"]
