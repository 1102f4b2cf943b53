"""vaezoo.data.tables.penguins: categories as numbers, measurements standardised."""

import csv
from pathlib import Path

import pytest
import torch

import vaezoo
from vaezoo import data
from vaezoo.data.tables import penguins
from vaezoo.errors import InputError

FILES = Path(data.__file__).parent / "files"
SOURCE = Path(__file__).parents[2] / "../shared/data/tables/penguins.csv"


@pytest.fixture(scope="module")
def table():
    return penguins.load()


def test_spec_describes_the_columns(table):
    spec, train, test = table
    assert (spec.kind, spec.shape, spec.likelihood) == ("table", (7,), "table")
    assert spec.columns == (
        "species:3",
        "island:3",
        "bill_length_mm:real",
        "bill_depth_mm:real",
        "flipper_length_mm:real",
        "body_mass_g:real",
        "sex:2",
    )
    assert (len(train), len(test)) == (267, 66)
    assert all(split.x.dtype == torch.float32 and spec.make_kind().accepts(split.x) for split in (train, test))


def test_incomplete_rows_are_left_out():
    with (FILES / penguins.FILE).open() as file:
        rows = list(csv.DictReader(file))
    incomplete = [row for row in rows if "" in row.values()]
    assert (len(rows), len(incomplete), len(penguins.read())) == (344, 11, 333)
    assert sum(not row["bill_length_mm"] for row in incomplete) == 2


def test_rows_become_text_again(table):
    spec, train, test = table
    x = torch.empty(333, 7)
    is_test = torch.zeros(333, dtype=torch.bool)
    is_test[torch.arange(66) * 333 // 66] = True
    x[is_test], x[~is_test] = test.x, train.x
    for row, numbers in zip(penguins.read(), x.tolist(), strict=True):
        for column, number in zip(spec.columns, numbers, strict=True):
            name = column.partition(":")[0]
            if name in penguins.CATEGORIES:
                assert penguins.CATEGORIES[name][int(number)] == row[name]
            else:
                mean, deviation = penguins.SCALINGS[name]
                assert number * deviation + mean == pytest.approx(float(row[name]), rel=1e-5)


def test_measurements_are_standardised(table):
    _, train, test = table
    assert train.x[:, 2:6].mean(0).abs().max() < 0.01
    assert (train.x[:, 2:6].std(0) - 1).abs().max() < 0.01
    assert test.x[:, 2:6].mean(0).abs().max() < 0.3  # 66 rows: two standard errors


def test_results_are_in_grams_and_millimetres(table, tmp_path):
    spec, _, test = table
    config = vaezoo.TrainConfig(steps=2)
    run = vaezoo.train("mlp-vae", vaezoo.load_data("penguins"), config=config, out=tmp_path / "run")
    values = spec.scaling.invert(test.x.numpy())
    assert values[:, 5].min() > 2000 and set(values[:, 6]) == {0.0, 1.0}
    assert (run.encode(values)["mu"] == run.encode()["mu"]).all()  # new tables are in these units too
    vaezoo.export_onnx(run, tmp_path / "export")
    for model in (run, vaezoo.runtime.load(tmp_path / "export")):
        assert vaezoo.sample(model, 20)[:, 5].min() > 1000
        assert abs(vaezoo.reconstruct(model, values)[:, 2].mean() - 44) < 5
    with pytest.raises(InputError, match="kind table"):
        run.encode(values + 0.5)  # no such categories


def test_categories_are_in_both_splits(table):
    for split in table[1:]:
        assert [split.x[:, i].unique().tolist() for i in (0, 1, 6)] == [[0, 1, 2], [0, 1, 2], [0, 1]]


def test_loading_is_deterministic(table):
    assert all(a.x.equal(b.x) for a, b in zip(table[1:], penguins.load()[1:], strict=True))


@pytest.mark.skipif(not SOURCE.is_file(), reason="the folder shared/data/tables beside the repository is absent")
def test_packaged_file_is_the_source():
    assert (FILES / penguins.FILE).read_bytes() == SOURCE.read_bytes()


def test_licence_is_packaged():
    licence = (FILES / "PENGUINS-LICENSE.md").read_text()
    assert "CC0" in licence and "Gorman" in licence
