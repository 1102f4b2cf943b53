"""Conditions on rows of tables, and samples that meet them."""

from pathlib import Path

import numpy as np
import pytest

import vaezoo
from vaezoo.core.conditions import holds, parse_conditions, select
from vaezoo.core.tables import Column
from vaezoo.errors import VaezooError

COLUMNS = [
    Column("age", "integer", "0"),
    Column("sex", "category", "", ("f", "m")),
    Column("born", "date", "%Y-%m-%d"),
    Column("a=b", "continuous", "1"),
]
ROWS = np.array([[29.6, 0, 0.0, 1.04], [30.4, 1, 9.2, 0.96], [31.0, 0, 10.0, 2.0]])


@pytest.mark.parametrize(
    ("texts", "rows"),
    [
        (["sex=f"], [0, 2]),
        (["sex!=f"], [1]),
        (["age=30"], [0, 1]),
        (["age>30"], [2]),
        (["age >= 30", "sex = f"], [0, 2]),
        (["born<=1970-01-10"], [0, 1]),
        (["born=1970-01-11"], [2]),
        (["age<10"], []),
    ],
)
def test_rows_are_compared_as_they_are_written(texts, rows):
    conditions = parse_conditions(texts, COLUMNS)
    assert np.flatnonzero(holds(conditions, COLUMNS, ROWS)).tolist() == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sex", "does not compare a column"),
        ("=f", "does not compare a column"),
        ("size=1", "has no column 'size'"),
        ("sex=x", "'x' is not a category"),
        ("sex<f", "categories have no order"),
        ("age>old", "'old' is not a finite number"),
        ("born>1970", "'1970' is not a date"),
    ],
)
def test_wrong_conditions_are_refused(text, message):
    with pytest.raises(VaezooError, match=message) as error:
        parse_conditions([text], COLUMNS)
    assert error.value.hint


def test_tables_alone_have_conditions():
    with pytest.raises(VaezooError, match="not made for a table"):
        parse_conditions(["a=1"], [])
    assert parse_conditions([], []) == []


def draw(n, seed):
    rng = np.random.default_rng(seed)
    yield np.stack([rng.normal(30, 2, n), rng.integers(0, 2, n), np.zeros(n), np.zeros(n)], 1)


def test_samples_are_drawn_until_enough_meet():
    conditions = parse_conditions(["sex=f", "age>=33"], COLUMNS)
    rows = np.concatenate([*select(draw, conditions, COLUMNS, 500, 0)])
    assert len(rows) == 500 == len(np.unique(rows, axis=0)) and holds(conditions, COLUMNS, rows).all()
    assert np.array_equal(rows, np.concatenate([*select(draw, conditions, COLUMNS, 500, 0)]))


def test_conditions_that_are_never_met_end_in_an_error():
    with pytest.raises(VaezooError, match="no sample was found with 'age>99' in 10,000 draws"):
        list(select(draw, parse_conditions(["age>99"], COLUMNS), COLUMNS, 5, 0))
    rare = parse_conditions(["age>=37"], COLUMNS)  # about 5 of 10,000
    with pytest.raises(VaezooError, match="of 10 samples were found") as error:
        list(select(draw, rare, COLUMNS, 10, 1))
    assert error.value.hint.startswith("give fewer samples")


def test_models_sample_with_conditions(inside, capsys):
    from vaezoo_cli.main import main

    vae = vaezoo.create_model("mlp-vae", vaezoo.load_data("penguins").spec)
    rows = vaezoo.sample(vae, 20, draw=True, where=["sex=MALE", "bill_length_mm>40"])
    assert rows.shape == (20, 7) and (rows[:, 6] == 1).all() and (rows[:, 2] > 40).all()
    vaezoo.train("mlp-vae", "penguins", options={"hidden": "8"}, config={"steps": 2}, out="run")
    for arguments, code in [(["--where", "sex=MALE", "--draw"], 0), (["--where", "body_mass_g>999999"], 2)]:
        with pytest.raises(SystemExit) as e:
            main(["sample", "run", "-n", "5", "--out", "s.csv", *arguments])
        assert e.value.code == code, capsys.readouterr().err
    lines = Path("s.csv").read_text().splitlines()
    assert len(lines) == 6 and all(line.endswith(",MALE") for line in lines[1:])
