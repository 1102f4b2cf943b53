"""vaezoo.data.tables.penguins: categories as numbers, measurements standardised."""

import csv
from pathlib import Path

import numpy as np
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
        "bill_length_mm:real?",
        "bill_depth_mm:real?",
        "flipper_length_mm:real?",
        "body_mass_g:real?",
        "sex:2?",
    )
    assert (len(train), len(test)) == (276, 68)
    assert all(split.x.dtype == torch.float32 and spec.make_kind().accepts(split.x) for split in (train, test))


def test_incomplete_rows_are_kept(table):
    _, train, test = table
    missing = torch.cat([train.x, test.x]).isnan()
    assert missing.sum(0).tolist() == [0, 0, 2, 2, 2, 2, 11]
    assert int(missing.any(1).sum()) == 11


def test_rows_become_cells_again(table):
    spec, train, test = table
    x = torch.empty(344, 7)
    is_test = torch.zeros(344, dtype=torch.bool)
    is_test[torch.arange(68) * 344 // 68] = True
    x[is_test], x[~is_test] = test.x, train.x
    cells = spec.to_table(spec.scaling.invert(x.numpy()))
    with (FILES / penguins.FILE).open() as file:
        rows = list(csv.DictReader(file))
    for name, column in cells.items():
        numeric = name in penguins.SCALINGS
        texts = [row[name] or None for row in rows]
        assert column.tolist() == [float(text) if numeric and text else text for text in texts], name


def test_measurements_are_standardised(table):
    _, train, test = table
    measurements = train.x[:, 2:6][~train.x[:, 2].isnan()]
    assert measurements.mean(0).abs().max() < 0.01
    assert (measurements.std(0) - 1).abs().max() < 0.01
    assert test.x[:, 2:6].nanmean(0).abs().max() < 0.3  # 68 rows: two standard errors


def test_results_are_in_grams_and_millimetres(table, tmp_path):
    spec, _, test = table
    config = vaezoo.TrainConfig(steps=2)
    run = vaezoo.train("mlp-vae", vaezoo.load_data("penguins"), config=config, out=tmp_path / "run")
    values = spec.scaling.invert(test.x.numpy())
    assert np.nanmin(values[:, 5]) > 2000 and set(values[~np.isnan(values[:, 6]), 6]) == {0.0, 1.0}
    assert (run.encode(values)["mu"] == run.encode()["mu"]).all()  # new tables are in these units too
    vaezoo.export_onnx(run, tmp_path / "export")
    for model in (run, vaezoo.runtime.load(tmp_path / "export")):
        assert vaezoo.sample(model, 20)[:, 5].min() > 1000
        assert abs(vaezoo.reconstruct(model, values)[:, 2].mean() - 44) < 5
    with pytest.raises(InputError, match="kind table"):
        run.encode(values + 0.5)  # no such categories


def test_categories_are_in_both_splits(table):
    for split in table[1:]:
        columns = [split.x[:, i] for i in (0, 1, 6)]
        assert [c[~c.isnan()].unique().tolist() for c in columns] == [[0, 1, 2], [0, 1, 2], [0, 1]]


def test_loading_is_deterministic(table):
    again = penguins.load()
    assert all(torch.equal(a.x.nan_to_num(-9), b.x.nan_to_num(-9)) for a, b in zip(table[1:], again[1:], strict=True))


@pytest.mark.skipif(not SOURCE.is_file(), reason="the folder shared/data/tables beside the repository is absent")
def test_packaged_file_is_the_source():
    assert (FILES / penguins.FILE).read_bytes() == SOURCE.read_bytes()


def test_licence_is_packaged():
    licence = (FILES / "PENGUINS-LICENSE.md").read_text()
    assert "CC0" in licence and "Gorman" in licence
