"""Names of the columns of data frames: kept in a run, found again in other frames, written as headers."""

import csv
import dataclasses
import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from frames import Frame

import vaezoo
from vaezoo import DataSpec, TrainConfig
from vaezoo.data.columns import column_names
from vaezoo.errors import InputError, UnsupportedDataError, VaezooError, VaezooWarning

TABLE = np.random.default_rng(0).normal([40, 170, 70], [10, 8, 12], (40, 3))
NAMES = ("age", "height", "y")  # the last one is also a column of the results


def frame(*names, rows=slice(None)):
    """Returns columns of TABLE in an order."""
    return Frame(**{name: TABLE[rows, NAMES.index(name)] for name in names})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    data = vaezoo.from_arrays(frame(*NAMES), np.arange(40) % 2, scale="standardize", name="people")
    folder = tmp_path_factory.mktemp("people") / "run"
    config = TrainConfig(steps=3, batch_size=8)
    return vaezoo.train("mlp-vae", data, options={"latent_dim": 2, "hidden": [8]}, config=config, out=folder)


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    return vaezoo.export_onnx(run, tmp_path_factory.mktemp("export") / "export").path


@pytest.mark.slow
def test_names_are_kept_in_run_and_export(run, exported):
    assert vaezoo.load(run.path).data.column_names == NAMES
    model = vaezoo.runtime.load(exported)
    assert model.data["column_names"] == [*NAMES]
    assert "The columns are, in this order:\n\n- age\n- height\n- y" in (exported / "README.md").read_text()


@pytest.mark.parametrize("source", ["run", "export"])
def test_columns_are_found_by_their_names(source, run, exported):
    model = run if source == "run" else vaezoo.runtime.load(exported)
    expected = vaezoo.encode(model, TABLE)["mu"]
    for order in (NAMES, ("y", "age", "height"), ("height", "y", "age")):
        assert np.array_equal(vaezoo.encode(model, frame(*order))["mu"], expected), order
    assert not np.allclose(vaezoo.encode(model, TABLE[:, [2, 0, 1]])["mu"], expected)  # an array has no names
    test = vaezoo.from_arrays(frame(*NAMES), x_test=frame("y", "age", "height"), scale="none").test
    assert np.array_equal(test.x, TABLE.astype(np.float32))


def test_runtime_finds_columns_by_their_names(exported):
    model = vaezoo.runtime.load(exported)
    x = model.scaling.apply(TABLE)
    columns = dict(zip(NAMES, x.T, strict=True))
    expected = model.encode(x)["mu"]
    assert np.array_equal(
        model.encode(Frame(**{name: columns[name] for name in ("y", "age", "height")}))["mu"], expected
    )
    for wrong in (("age", "height"), ("age", "height", "y", "id"), ("age", "height", "id")):
        with pytest.raises(VaezooError, match="x has the columns age, height"):
            model.encode(Frame(**dict.fromkeys(wrong, x[:, 0])))


@pytest.mark.parametrize(
    ("columns", "message", "hint"),
    [
        (("age", "height"), "x lacks the columns 'y'", "give the columns of the training: 'age', 'height', 'y'"),
        (("age", "height", "id"), "x lacks the columns 'y' and has the unknown columns 'id'", "of the training"),
        (("age", "id", "height", "y"), "x has the unknown columns 'id'", "leave the unknown columns out"),
        (("a", "b", "c", "d", "e"), "unknown columns 'a', 'b', 'c' and 2 more", "of the training"),
    ],
)
def test_other_columns_are_refused_by_name(columns, message, hint, run):
    with pytest.raises(UnsupportedDataError) as error:
        vaezoo.score(run, Frame(**dict.fromkeys(columns, TABLE[:, 0])))
    assert message in error.value.message and hint in error.value.hint


def test_data_sets_in_another_order_are_refused(run):
    """Their columns are scaled already."""
    other = vaezoo.from_arrays(frame("y", "height", "age"), scale=run.data.scaling)
    with pytest.raises(UnsupportedDataError, match="has the column 'y' where the model was made for 'age'"):
        vaezoo.score(run, other)
    same = vaezoo.from_arrays(frame(*NAMES), scale=run.data.scaling)
    assert len(vaezoo.score(run, same).names) == 4  # its validation part


def test_runs_without_names_go_by_position(run, tmp_path):
    """An older run has no names. Neither has the file from which a run on a frame is resumed."""
    data = vaezoo.from_arrays(TABLE, np.arange(40) % 2, scale="standardize")
    old = vaezoo.train("mlp-vae", data, config=TrainConfig(steps=1, batch_size=8), out=tmp_path / "old")
    record = json.loads((old.path / "run.json").read_text())
    assert record["data"].pop("column_names") == []
    (old.path / "run.json").write_text(json.dumps(record))
    assert len(vaezoo.encode(vaezoo.load(old.path), frame("y", "age", "height"))["mu"]) == 40
    named = vaezoo.from_arrays(frame(*NAMES), np.arange(40) % 2, scale="standardize")
    assert vaezoo.resume(old.path, named, steps=2).checkpoint.step in (1, 2)
    np.savez(tmp_path / "people.npz", x=TABLE, y=np.arange(40) % 2)
    copy = shutil.copytree(run.path, tmp_path / "copy")
    assert vaezoo.resume(copy, tmp_path / "people.npz", steps=4).data.column_names == NAMES


@pytest.mark.parametrize("source", ["run", "export"])
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_names_are_headers_of_tables(source, suffix, run, exported, inside, capsys):
    from vaezoo_cli.main import main

    path = run.path if source == "run" else exported
    np.savez("new.npz", x=TABLE[:5], y=[0, 1, 0, 1, 1])
    for arguments in (["reconstruct", path, "--data", "new.npz"], ["sample", path, "-n", 5]):
        with pytest.raises(SystemExit) as e:
            main([*map(str, arguments), "--out", f"table{suffix}"])
        assert e.value.code == 0, capsys.readouterr().err
        columns = read(f"table{suffix}")
        known = ["name", "y"] if arguments[0] == "reconstruct" else []
        assert [*columns] == [*known, "age", "height", "x_y" if known else "y"]
    model = run if source == "run" else vaezoo.runtime.load(exported)
    expected = vaezoo.sample(model, 5)
    assert np.array_equal(np.array([columns[name] for name in NAMES], float).T, expected)


def read(path):
    """Returns the columns of a table."""
    if path.endswith(".parquet"):
        parquet = pytest.importorskip("pyarrow.parquet")
        return parquet.read_table(path).to_pydict()
    rows = list(csv.DictReader(Path(path).read_text().splitlines()))
    return {name: [row[name] for row in rows] for name in rows[0]}


def test_tables_go_by_their_names():
    """The columns of a table have names too."""
    spec = DataSpec(name="t", shape=(2,), kind="table", likelihood="table", columns=("mass:real", "sex:2"))
    vae = vaezoo.create_model("mlp-vae", spec)
    new = Frame(sex=np.array([0.0, 1.0]), mass=np.array([-1.5, 0.3]))
    assert vaezoo.load_examples(vae, new).split.x.tolist() == [[-1.5, 0.0], [pytest.approx(0.3), 1.0]]


def test_which_values_have_names():
    assert column_names(frame(*NAMES), "x") == NAMES
    assert column_names(TABLE, "x") == column_names([[1.0]], "x") == ()
    numbered, years = frame(*NAMES), frame(*NAMES)
    numbered.columns, years.columns = [0, 1, 2], [2019, 2020, 2021]
    assert column_names(numbered, "x") == () and column_names(years, "x") == ("2019", "2020", "2021")
    years.columns = ["a", "b\n", "b"]
    with pytest.raises(InputError, match="x has two columns named 'b'"):
        column_names(years, "x")
    years.columns = ["a", "b", "c" * 2_000_000]
    with pytest.warns(VaezooWarning, match="3 columns of x are too long to be kept"):
        assert column_names(years, "x") == ()


@pytest.mark.parametrize("names", [("a",), ("a", "a"), ("a", "b", "c"), ("a", "b\x1b")])
def test_names_fit_the_data(names):
    spec = DataSpec(name="v", shape=(2,))
    with pytest.raises(VaezooError, match=r"column names for shape \(2,\)|cannot be printed"):
        dataclasses.replace(spec, column_names=names)
    assert dataclasses.replace(spec, column_names=("a", "b")).column_names == ("a", "b")


@pytest.mark.parametrize("package", ["pandas", "polars"])
def test_real_frames(package, run):
    library = pytest.importorskip(package)
    columns = {name: TABLE[:, NAMES.index(name)] for name in ("height", "y", "age")}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        actual = vaezoo.encode(run, library.DataFrame(columns))["mu"]
    assert np.array_equal(actual, vaezoo.encode(run, TABLE)["mu"])
    with pytest.raises(UnsupportedDataError, match="unknown columns 'id'"):
        vaezoo.encode(run, library.DataFrame({**columns, "id": ["a"] * 40}))
