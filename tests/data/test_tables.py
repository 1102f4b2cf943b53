"""Tables of cells: kinds are found, cells become numbers and cells again, bad input is named by its place."""

import csv
import re

import numpy as np
import pytest
import torch

import vaezoo
from vaezoo.core.table_cells import to_cells
from vaezoo.core.tables import Column, parse_model_column, to_numbers
from vaezoo.data.tables import kinds, load, reading
from vaezoo.errors import InputError, UnsupportedDataError, VaezooError

HEADER = "id,age,height,sex,smokes,born,city,planet"
ROWS = [f"{i},{20 + i},{1.5 + i / 100:.2f},{'fm'[i % 2]},{['yes', 'no'][i % 2]},2001-02-{i + 1:02},{'ABC'[i % 3]},Earth"
        for i in range(20)]  # fmt: skip
PEOPLE = "\n".join([HEADER, *ROWS]) + "\n"


def write(folder, text, name="people.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def find(texts, given=None):
    """Returns the kind that is found for the cells of a column."""
    table = reading.Table("t", {"a": [text or None for text in texts]})
    return kinds.make_column(table, "a", table.columns["a"], given)


def test_kinds_of_a_file_are_found(tmp_path):
    spec = vaezoo.load_data(write(tmp_path, PEOPLE)).spec
    assert [c.notation for c in spec.table_columns] == [
        "integer:0",
        "continuous:2",
        "category",
        "boolean",
        "date:%Y-%m-%d",
        "category",
    ]
    assert spec.columns == ("age:real", "height:real", "sex:2", "smokes:2", "born:real", "city:3")
    assert spec.left_out == ("id", "planet") and spec.categories[3] == ("no", "yes")


@pytest.mark.parametrize(
    ("texts", "notation"),
    [
        (["1", "2", "3"], "integer:0"),
        (["1.0", "2.0", "", "3.0"], "integer:1"),
        (["1", "2.25", "3"], "continuous:2"),
        (["1e-3", "2", "3"], "continuous"),
        ([f"{i / 3!r}" for i in range(3)], "continuous"),
        (["0", "1", "0"], "boolean"),
        (["True", "False", ""], "boolean"),
        (["7", "9", "7"], "category"),
        (["007", "012", "100"], "category"),
        (["a", "b", "a"], "category"),
        ([f"name {i}" for i in range(30)], "identifier"),
        ([str(i) for i in range(30)], "identifier"),
        ([str(i) for i in range(1, 31)], "identifier"),
        ([str(i) for i in reversed(range(30))], "integer:0"),
        (["x", "x", ""], "constant"),
        (["2001-12-31", "2002-01-31"], "date:%Y-%m-%d"),
        (["31.12.2001", "31.01.2002", "1.2.2003"], "date:%d.%m.%Y"),
        (["12/31/2001", "01/31/2002"], "date:%m/%d/%Y"),
        (["31/12/2001", "01/11/2002", "02/11/2002"], "date:%d/%m/%Y"),
        (["2001-12-31 10:20:30", "2002-01-31 00:00:01"], "date:%Y-%m-%d %H:%M:%S"),
    ],
)
def test_kinds_are_found(texts, notation):
    assert find(texts).notation == notation


def test_users_choose_kinds(tmp_path):
    path = write(tmp_path, PEOPLE)
    chosen = {"age": "category", "id": "continuous", "city": "identifier", "height": "continuous:1"}
    spec = vaezoo.load_data(path, columns=chosen).spec
    assert [c.notation for c in spec.table_columns][:3] == ["continuous:0", "category", "continuous:1"]
    assert spec.left_out == ("city", "planet") and len(spec.categories[1]) == 20
    for columns, message in [
        ({"agee": "integer"}, "has no column 'agee'"),
        ({"age": "number"}, "cannot have the kind 'number'"),
        ({"age": "date:%m"}, "cannot have the kind"),
        ({"city": "integer"}, "line 2 of .*, column 'city': 'A' is not a finite number"),
        ({"planet": "category"}, "has 1 values, and a category has 2"),
        ({"city": "boolean"}, "has 3 values, and a boolean has exactly 2"),
    ]:
        with pytest.raises(VaezooError, match=message) as error:
            vaezoo.load_data(path, columns=columns)
        assert error.value.hint
    with pytest.raises(VaezooError, match="is no"):
        vaezoo.load_data("digits", columns={"a": "integer"})
    assert kinds.parse_columns(["a=b=date:%Y"]) == {"a=b": "date:%Y"}
    for texts in (["age"], ["=integer"], ["a=integer", "a=date"]):
        with pytest.raises(VaezooError, match="--columns"):
            kinds.parse_columns(texts)


def test_cells_are_given_back_as_they_were(tmp_path):
    path = write(tmp_path, PEOPLE)
    data = vaezoo.load_data(path)
    values = data.spec.scaling.invert(load.new_rows(path, data.spec).numpy())
    cells = to_cells(data.spec.table_columns, values, typed=False)
    rows = list(csv.DictReader(PEOPLE.splitlines()))
    assert list(cells) == ["age", "height", "sex", "smokes", "born", "city"]
    for name, column in cells.items():
        texts = [f"{v:.2f}" for v in column] if name == "height" else column.astype(str).tolist()
        assert texts == [row[name] for row in rows], name
    typed = data.spec.to_table(values)
    assert typed["born"].dtype == "datetime64[D]" and typed["age"].dtype == np.int64


@pytest.mark.parametrize(
    ("column", "value", "typed", "text"),
    [
        (Column("a", "integer", "0"), 2.6, 3, "3"),
        (Column("a", "integer", "1"), 2.6, 3.0, "3.0"),
        (Column("a", "continuous", "2"), 2.678, 2.68, "2.68"),
        (Column("a", "continuous", ""), 2.6789123456789, 2.678912, "2.678912"),
        (Column("a", "boolean", "", ("false", "true")), 1.0, True, "true"),
        (Column("a", "boolean", "", ("0", "1")), 1.0, 1, "1"),
        (Column("a", "category", "", ("1", "1.0")), 1.0, "1.0", "1.0"),
        (Column("a", "date", "%d.%m.%Y"), 0.4, np.datetime64("1970-01-01"), "01.01.1970"),
        (Column("a", "date", "%Y-%m-%d %H:%M"), 1.5, np.datetime64("1970-01-02T12:00:00"), "1970-01-02 12:00"),
        (Column("a", "date", "%Y-%m-%d"), 1e9, np.datetime64("9999-12-31"), "9999-12-31"),
    ],
)
def test_numbers_become_cells(column, value, typed, text):
    assert to_cells([column], np.array([[value]]))["a"][0] == typed
    assert to_cells([column], np.array([[value]]), typed=False)["a"].astype(str)[0] == text
    assert to_cells([column], np.array([[np.nan], [value]]), typed=False)["a"][0] == ""


def test_equal_categories_are_found():
    where = str
    numbers = Column("a", "category", "", ("1", "2"))
    assert to_numbers(numbers, ["1.0", "2", None], where)[:2].tolist() == [0, 1]
    assert to_numbers(Column("a", "boolean", "", ("False", "True")), ["true", "False"], where).tolist() == [1, 0]
    exact = Column("a", "category", "", ("1", "1.0"))
    assert to_numbers(exact, ["1.0", "1"], where).tolist() == [1, 0]


@pytest.mark.parametrize("text", ["a", "a:0", "a:1", "a:10001", "a:real??", "a:Real", "a:2.5"])
def test_other_model_columns_are_refused(text):
    assert parse_model_column(text) is None


BOMB = ",".join(f"c{i}" for i in range(1_000_000)) + "\n"
BAD = {
    "ragged": ("a,b\n1,2\n3\n", "line 3 of .* has 1 cells, but line 1 names 2 columns"),
    "quoted lines": ('a,b\n"1\n1",2\n3,4,5\n', "line 4 of .* has 3 cells"),
    "open quote": ('a,b\n"1,2\n', "line 2 of .* is not valid CSV"),
    "empty column": ("a,b\n1,\n2,\n3,NA\n", "column 'b' of .* has no values"),
    "mixed types": ("a,b\n1,x\n2,y\nthree,z\n4,z\n", "line 4 of .*, column 'a': 'three' is not among the numbers"),
    "infinite": ("a,b\n1,x\n2,y\ninf,z\n4,z\n", "line 4 of .*, column 'a': 'inf' is not among the numbers"),
    "too large": ("a,b\n1,x\n2,y\n1e999,z\n4,z\n", "line 4 of .*, column 'a': '1e999' is not a finite number"),
    "no date": ("a,b\n2001-02-28,x\n2001-02-30,y\n2001-03-01,x\n", "line 3 of .*, column 'a': '2001-02-30' is"),
    "far date": ("a,b\n2001-02-28,x\n2001-03-02,y\n99999-03-01,x\n", "line 4 of .*, column 'a': '99999-03-01' is not"),
    "many columns": (BOMB + "1\n", "has 1,000,000 columns"),
    "long line": ("a" * ((1 << 24) + 1), "line 1 of .* it has more than 16 MiB"),
    "long cell": ("a,b\n" + "1" * 200_000 + ",2\n", "line 2 of .* is not valid CSV: field larger"),
    "semicolons": ("a;b\n1;2\n", "line 1 of .* has another delimiter"),
    "tabs": ("a\tb\n1\t2\n", "line 1 of .* has another delimiter"),
    "latin-1": ("a,b\nx,1\ncaf\xe9,2\n".encode("latin-1"), "line 3 of .* is not UTF-8"),
    "utf-16": ("a,b\n1,2\n".encode("utf-16"), "line 1 of .* is not UTF-8"),
    "zero bytes": (b"a,b\n1\0,2\n", "line 2 of .* is not valid CSV: it holds zero bytes"),
    "empty": ("", "is empty"),
    "blank": ("\n\n", "is empty"),
    "header only": ("a,b\n", "has a header but no rows"),
    "duplicate": ("a,b,a\n1,2,3\n", "line 1 of .* has two columns named 'a'"),
    "unnamed": (",b\n1,2\n", "line 1 of .*: column 1 has no name"),
    "one row": ("a,b\n1,2\n", "only constant columns and identifiers"),
    "constants": ("a,b\n1,2\n1,2\n", "only constant columns and identifiers"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_named_by_place(name, tmp_path):
    text, message = BAD[name]
    path = write(tmp_path, text)
    with pytest.raises(InputError) as error:
        vaezoo.load_data(path)
    assert re.search(message, error.value.message) and error.value.hint
    assert len(str(error.value)) < 1000 and str(path) in error.value.message


def test_too_many_cells_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_CELLS", 30)
    with pytest.raises(InputError, match="more than 30 cells"):
        vaezoo.load_data(write(tmp_path, PEOPLE))
    with pytest.raises(InputError, match="more than 30 cells"):
        reading.from_frame(frame(20), "x")


def test_byte_order_mark_and_blank_lines_are_skipped(tmp_path):
    data = vaezoo.load_data(write(tmp_path, b"\xef\xbb\xbfa,b\r\n1.5,x\r\n\r\n2.5,y\r\n3.5,y\r\n"))
    assert data.spec.columns == ("a:real", "b:2")


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (lambda t: t.replace("25,1.55,m", "25,1.55,d"), InputError, "line 7 of .*, column 'sex': 'd' is not"),
        (lambda t: t.replace("25,1.55,m", "old,1.55,m"), InputError, "line 7 of .*, column 'age': 'old' is"),
        (lambda t: t.replace("2001-02-06", "6.2.2001"), InputError, "line 7 of .*, column 'born': '6.2.2001' is"),
        (lambda t: t.replace("25,1.55,m", "25,1.55,"), InputError, "line 7 of .*, column 'sex': the cell has no value"),
        (lambda t: t.replace("age", "years"), UnsupportedDataError, "lacks the columns 'age' and has the"),
        (lambda t: t.replace("\n", ",1\n").replace("planet,1", "planet,new"), UnsupportedDataError, "columns 'new'"),
    ],
)  # fmt: skip
def test_new_rows_must_fit(change, kind, message, tmp_path):
    spec = vaezoo.load_data(write(tmp_path, PEOPLE)).spec
    with pytest.raises(kind, match=message) as error:
        load.new_rows(write(tmp_path, change(PEOPLE), "new.csv"), spec)
    assert error.value.hint


def test_new_columns_are_found_by_name(tmp_path):
    spec = vaezoo.load_data(write(tmp_path, PEOPLE)).spec
    rows = list(csv.DictReader(PEOPLE.splitlines()))
    order = ["city", "born", "age", "smokes", "sex", "height", "planet"]  # without an identifier
    text = "\n".join([",".join(order), *(",".join(row[name] for name in order) for row in rows)])
    assert torch.equal(
        load.new_rows(write(tmp_path, text, "new.csv"), spec), load.new_rows(write(tmp_path, PEOPLE), spec)
    )
    vectors = vaezoo.DataSpec(name="v", shape=(3,))
    with pytest.raises(UnsupportedDataError, match="not for a table of cells"):
        load.new_rows(tmp_path / "new.csv", vectors)


class Frame(dict):
    """A frame as pandas and polars have it."""

    @property
    def columns(self):
        return list(self)

    def __getitem__(self, name):
        return Series(dict.__getitem__(self, name))

    def to_numpy(self):
        return np.array([*self.values()], object).T


class Series(list):
    def to_list(self):
        return list(self)

    def to_numpy(self):
        return np.array(self)


def frame(n):
    return Frame(age=[20.5 + i for i in range(n)], sex=["f" if i % 2 else "m" for i in range(n)], x=[0.5] * n)


def test_frames_of_mixed_columns(tmp_path):
    cells = Frame(age=[20.5, None, 22.5, float("nan")], sex=["m", "f", "f", None], ok=[True, False, True, True])
    data = vaezoo.from_table(cells, columns={"age": "continuous"})
    assert data.spec.columns == ("age:real?", "sex:2?", "ok:2") and data.spec.categories[2] == ("False", "True")
    x = vaezoo.load_examples(vaezoo.create_model("mlp-vae", data.spec), cells).split.x
    assert x.isnan().tolist() == [[False] * 3, [True, False, False], [False] * 3, [True, True, False]]
    assert load.is_mixed_frame(cells) and not load.is_mixed_frame(Frame(a=[1.0, 2.0]))
    with pytest.raises(InputError, match="row 0 of table, column 'a' holds a list"):
        vaezoo.from_table(Frame(a=[[1], [2]]))


@pytest.mark.parametrize("package", ["pandas", "polars"])
def test_real_frames(package, tmp_path):
    library = pytest.importorskip(package)
    path = write(tmp_path, PEOPLE)
    spec = vaezoo.load_data(path).spec
    cells = library.read_csv(path)
    assert vaezoo.from_table(cells, name="people").spec == spec
    assert torch.equal(load.new_rows(cells, spec), load.new_rows(path, spec))


def test_parquet_is_read_and_typed(tmp_path):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    spec = vaezoo.load_data(write(tmp_path, PEOPLE)).spec
    expected = load.new_rows(tmp_path / "people.csv", spec)
    cells = spec.to_table(spec.scaling.invert(expected.numpy()))
    parquet.write_table(pa.table(cells), tmp_path / "people.parquet")
    assert torch.equal(load.new_rows(tmp_path / "people.parquet", spec), expected)
    assert vaezoo.load_data(tmp_path / "people.parquet").spec.columns == spec.columns
    write(tmp_path, b"PAR1" + b"\0" * 40, "bad.parquet")
    with pytest.raises(InputError, match="is not a Parquet file, or is damaged"):
        vaezoo.load_data(tmp_path / "bad.parquet")


def test_options_of_other_data_are_refused(tmp_path):
    path = write(tmp_path, PEOPLE)
    for options, message in [
        ({"scale": "minmax"}, "standardized, not scaled by minmax"),
        ({"image_size": 16}, "cannot be resized"),
        ({"stream": True}, "cannot be streamed"),
        ({"likelihood": "bernoulli"}, "not for data of kind table"),
    ]:
        with pytest.raises(VaezooError, match=message):
            vaezoo.load_data(path, **options)


def test_descriptions_must_fit_each_other():
    base = {"name": "t", "shape": (1,), "kind": "table", "likelihood": "table"}
    good = vaezoo.DataSpec(**base, columns=("a:2",), column_formats=("category",), categories=(("x", "y"),))
    assert good.table_columns == [Column("a", "category", "", ("x", "y"))]
    for formats, categories in [(("category",), ()), (("number",), (("x", "y"),)), (("category",), (("x",),))]:
        with pytest.raises(VaezooError, match="formats of columns that do not fit"):
            vaezoo.DataSpec(**base, columns=("a:2",), column_formats=formats, categories=categories)
