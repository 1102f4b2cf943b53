"""Counts from arrays, sparse matrices and .h5ad files, what is refused, and the generated cells."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import vaezoo
from vaezoo import DataSpec
from vaezoo.data.counts import cells
from vaezoo.data.counts.layout import MAX_COUNT
from vaezoo.data.inference import find_examples
from vaezoo.errors import InputError, UnsupportedDataError, VaezooError

RNG = np.random.default_rng(0)
X = RNG.poisson(2.0, (40, 5)) + np.eye(1, 5, dtype=np.int64)  # no row is empty
TYPES = np.array(["T", "B"] * 20)


def spec_of(x, **options):
    return vaezoo.from_arrays(x, kind="counts", **options).spec


def write_sparse(path, x, **changes):
    """Writes a file as scipy.sparse.save_npz does."""
    sparse = pytest.importorskip("scipy.sparse")
    matrix = sparse.csr_matrix(x)
    arrays = {"indices": matrix.indices, "indptr": matrix.indptr, "format": b"csr", "shape": np.array(x.shape)}
    np.savez(path, **(arrays | {"data": matrix.data} | changes))


@pytest.fixture(scope="module")
def anndata():
    return pytest.importorskip("anndata")


@pytest.fixture
def annotated(anndata, inside):
    """A function that writes a .h5ad file: normalised X, counts in a sparse layer, types as labels."""

    def write(x, names=tuple("abcde"), path="cells.h5ad", column="type", **layers):
        import pandas
        from scipy import sparse

        obs = pandas.DataFrame({column: pandas.Categorical(TYPES[: len(x)])}, index=[f"cell{i}" for i in range(len(x))])
        data = anndata.AnnData(x.astype(np.float32), obs=obs, var=pandas.DataFrame(index=list(names)))
        for name, values in layers.items():
            data.layers[name] = sparse.csr_matrix(values.astype(np.float32))
        data.write_h5ad(path)

    return write


@pytest.mark.parametrize("dtype", ["int64", "uint16", "float32", "float64"])
def test_dense_arrays(dtype, inside):
    np.savez("c.npz", x=X.astype(dtype), y=TYPES)
    data = vaezoo.load_data("c.npz", kind="counts")
    assert (data.spec.kind, data.spec.likelihood, data.spec.class_names) == ("count", "zinb", ("B", "T"))
    assert data.train.x.dtype == torch.float32 and data.source.scale == "none" and not data.spec.offset
    assert sorted(torch.cat([data.train.x, data.valid.x]).sum(1).tolist()) == sorted(X.sum(1).tolist())
    assert vaezoo.load_data("c.npz", kind="counts", likelihood="nb").spec.likelihood == "nb"
    assert vaezoo.from_arrays(X.astype(dtype), kind="counts").train.x.equal(data.train.x)


def test_sparse_matrices_are_those_of_scipy(inside):
    sparse = pytest.importorskip("scipy.sparse")
    sparse.save_npz("s.npz", sparse.csr_matrix(X))
    np.save("d.npy", X)
    ours, dense = (vaezoo.load_data(path, kind="counts") for path in ("s.npz", "d.npy"))
    assert ours.train.x.equal(dense.train.x) and ours.valid.x.equal(dense.valid.x)
    sparse.save_npz("columns.npz", sparse.csc_matrix(X))
    with pytest.raises(InputError, match="of the format 'csc'") as error:
        vaezoo.load_data("columns.npz", kind="counts")
    assert "tocsr" in error.value.hint


@pytest.mark.parametrize(
    "changes",
    [
        {"indices": np.array([9] * np.count_nonzero(X))},
        {"indices": np.array([-1] * np.count_nonzero(X))},
        {"indptr": np.arange(3)},
        {"indptr": np.array([0, *[50] * 39, 7])},
        {"shape": np.array([40, 5, 1])},
        {"shape": np.array([-40, 5])},
        {"indptr": np.linspace(0, 100, 41)},
        {"data": np.ones(3)},
    ],
)
def test_forged_sparse_matrices_are_refused(changes, inside):
    write_sparse("s.npz", X, **changes)
    with pytest.raises(InputError, match="is not a sparse matrix of compressed rows"):
        vaezoo.load_data("s.npz", kind="counts")


def test_large_sparse_matrices_are_refused(inside):
    write_sparse("s.npz", X, shape=np.array([40, 10**13]))
    with pytest.raises(InputError, match="GiB as a dense array"):
        vaezoo.load_data("s.npz", kind="counts")
    Path("cut.npz").write_bytes(Path("s.npz").read_bytes()[:300])
    with pytest.raises(InputError, match="cannot be read"):
        vaezoo.load_data("cut.npz", kind="counts")


def changed(row, column, value):
    x = X.astype(np.float64)
    x[row, column] = value
    return x


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (changed(3, 2, -1), "value -1 in row 3, column 2, which is not a count"),
        (changed(7, 4, 0.5), "value 0.5 in row 7, column 4"),
        (changed(7, 4, np.nan), "value nan in row 7, column 4"),
        (changed(0, 0, np.inf), "value inf in row 0, column 0"),
        (changed(1, 1, MAX_COUNT + 1), r"value 1.67772e\+07 in row 1, column 1"),
        (np.where(np.arange(40)[:, None] == 6, 0, X), "1 rows without a count, the first is row 6"),
        (X[0], "has the shape"),
        (X[:, :, None], "has the shape"),
        (X.astype(complex), "holds complex128"),
    ],
)
def test_other_values_are_refused(x, message, inside):
    np.savez("c.npz", x=x)
    for load in (lambda: spec_of(x), lambda: vaezoo.load_data("c.npz", kind="counts")):
        with pytest.raises(InputError, match=message if x.dtype.kind != "c" else "holds complex128"):
            load()


def test_large_counts_and_empty_columns_are_kept():
    x = X.copy()
    x[:, 3], x[0, 0] = 0, MAX_COUNT
    data = vaezoo.from_arrays(x, kind="counts")
    assert float(torch.cat([data.train.x, data.valid.x]).max()) == MAX_COUNT and not data.train.x[:, 3].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": "standardize"}, "counts are not scaled"),
        ({"likelihood": "gaussian"}, "is not for data of kind count"),
        ({"window": 4}, "--window is for series"),
        ({"layer": "raw"}, "--layer is for .h5ad files"),
        ({"label_column": "type"}, "--label-column is for .h5ad files"),
        ({"image_size": 8}, "cannot be resized"),
        ({"kind": None, "layer": "raw"}, "--layer is for counts"),
        ({"kind": "count"}, "no kind of data named 'count'"),
    ],
)
def test_wrong_options_are_refused(options, message, inside):
    np.savez("c.npz", x=X)
    with pytest.raises(VaezooError, match=message):
        vaezoo.load_data("c.npz", **({"kind": "counts"} | options))


def test_annotated_files(annotated):
    annotated(np.log1p(X), counts=X, scaled=X / 3)
    with pytest.raises(InputError, match=r"X of '.*cells.h5ad' has values that are not counts") as error:
        vaezoo.load_data("cells.h5ad")
    assert error.value.hint == "give --layer counts"
    data = vaezoo.load_data("cells.h5ad", layer="counts", label_column="type")
    assert (data.spec.kind, data.spec.column_names, data.spec.class_names) == ("count", tuple("abcde"), ("B", "T"))
    assert (data.spec.layer, data.spec.label_column, data.source.kind) == ("counts", "type", "counts")
    assert data.train.x.equal(vaezoo.from_arrays(X, kind="counts").train.x)
    plain = vaezoo.load_data("cells.h5ad", layer="counts")
    assert plain.train.y is None and plain.spec.label_column == ""


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"layer": "count"}, "has no layer 'count'", "did you mean 'counts'?"),
        ({"layer": "counts", "label_column": "kind"}, "no column 'kind'", "its columns are type"),
        ({"layer": "scaled"}, "layer 'scaled' of", "give --layer counts"),
    ],
)
def test_wrong_names_of_annotated_files(annotated, options, message, hint):
    annotated(np.log1p(X), counts=X, scaled=X / 3)
    with pytest.raises(InputError, match=message) as error:
        vaezoo.load_data("cells.h5ad", **options)
    assert error.value.hint == hint


def test_damaged_annotated_files(annotated, inside, monkeypatch):
    annotated(np.log1p(X), scaled=X / 3)
    with pytest.raises(InputError, match="not counts") as error:
        vaezoo.load_data("cells.h5ad")
    assert "no layer of the file holds them" in error.value.hint
    content = Path("cells.h5ad").read_bytes()
    for damaged in (b"", b"no HDF5", content[: len(content) // 2], content[:100]):
        Path("bad.h5ad").write_bytes(damaged)
        with pytest.raises(InputError, match=r"is not a .h5ad file, or is damaged"):
            vaezoo.load_data("bad.h5ad")
    with pytest.raises(InputError, match="no file"):
        vaezoo.load_data("none.h5ad")
    monkeypatch.setitem(sys.modules, "anndata", None)
    with pytest.raises(VaezooError, match="needs anndata") as missing:
        vaezoo.load_data("cells.h5ad")
    assert "counts" in missing.value.hint


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on counts without names, in memory."""
    data = vaezoo.from_arrays(X, TYPES, kind="counts")
    return vaezoo.train("scvi", data, options={"hidden": "8"}, config={"steps": 2, "batch_size": 10})


def test_new_counts_are_brought_to_the_form_of_the_run(run, inside):
    write_sparse("s.npz", X)
    np.savez("d.npz", x=X, y=TYPES)
    for given in ("s.npz", "d.npz", X, X.astype(np.float32)):
        assert vaezoo.load_examples(run, given).split.x.equal(torch.from_numpy(X).float())
    with pytest.raises(InputError, match=r"value 0.5 in row 7, column 4"):
        vaezoo.load_examples(run, changed(7, 4, 0.5))
    with pytest.raises(UnsupportedDataError, match="the model was made for"):
        vaezoo.load_examples(run, X[:, :4])


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_columns_of_annotated_files_are_found_by_name(annotated, inside):
    annotated(X, path="train.h5ad")
    data = vaezoo.load_data("train.h5ad", label_column="type")
    run = vaezoo.train("scvi", data, options={"hidden": "8"}, config={"steps": 2, "batch_size": 10}, out="run")
    assert vaezoo.load("run").load_data().spec == data.spec
    annotated(X[:, ::-1], names="edcba", path="new.h5ad")
    examples = vaezoo.load_examples(run, "new.h5ad")
    assert examples.split.x.equal(torch.from_numpy(X).float()) and examples.spec.class_names == ("B", "T")
    annotated(X, path="unlabelled.h5ad", column="other")
    assert vaezoo.load_examples(run, "unlabelled.h5ad").split.y is None
    annotated(X, names="abcdX", path="other.h5ad")
    with pytest.raises(UnsupportedDataError, match="lacks the columns"):
        vaezoo.load_examples(run, "other.h5ad")
    with pytest.raises(InputError, match="two columns named 'a'"):
        annotated(X, names="aacde", path="twice.h5ad")
        vaezoo.load_data("twice.h5ad")


def test_models_of_other_kinds_refuse_annotated_files(annotated):
    annotated(X)
    with pytest.raises(UnsupportedDataError, match="holds counts, but the model was made for kind unit"):
        find_examples(DataSpec(name="vectors", shape=(5,)), "cells.h5ad")


def test_cells_are_as_documented():
    spec, train, test = cells.load()
    assert (spec.shape, spec.kind, spec.class_names) == ((200,), "count", tuple("ABCD"))
    assert train.x.shape == (5_000, 200) and test.x.shape == (1_000, 200)
    assert spec.make_kind().accepts(train.x) and train.x.any(1).all()
    assert not train.x[:1_000].equal(test.x)
    assert np.bincount(train.y.numpy()) == pytest.approx(np.full(4, 1_250), abs=130)
    truth, (drawn, _) = cells.make_truth(), cells.draw_splits()
    assert np.array_equal(drawn.x, train.x.numpy())  # the seed fixes them
    assert np.log(drawn.library).mean() == pytest.approx(cells.LIBRARY[0], abs=0.02)
    rng = np.random.default_rng(1)
    z = truth.centres[0] + cells.SPREAD * rng.standard_normal((4_000, 2))
    fractions = np.exp(cells.log_fractions(truth, z))
    assert fractions.sum(1) == pytest.approx(np.ones(4_000))
    # The mean of a gene over the cells of a type, by the parameters and by the cells.
    kept = 1 / (1 + np.exp(truth.dropout_logits))
    expected = np.exp(cells.LIBRARY[0] + 0.5 * cells.LIBRARY[1] ** 2) * fractions.mean(0) * kept
    found = drawn.x[drawn.types == 0]
    errors = np.abs(found.mean(0) - expected) / (found.std(0) / np.sqrt(len(found)) + 0.02 * expected)
    assert errors.max() < 5
