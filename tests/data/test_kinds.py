"""Kinds of data: valid examples, features for networks, and the number of observed values."""

import math

import pytest
import torch

from vaezoo.data.kinds import KINDS, Kind, make_kind
from vaezoo.data.spec import DataSpec
from vaezoo.errors import VaezooError
from vaezoo.vae import example_batch

COLUMNS = ("age:real", "sex:2", "income:real", "job:7")
SPECS = {
    "unit": DataSpec(name="images", shape=(3, 5, 4)),
    "real": DataSpec(name="series", shape=(2, 6), kind="real", likelihood="gaussian"),
    "tokens": DataSpec(name="texts", shape=(9,), kind="tokens", likelihood="categorical", vocabulary=5),
    "count": DataSpec(name="cells", shape=(2, 3), kind="count", likelihood="nb"),
    "table": DataSpec(name="people", shape=(4,), kind="table", likelihood="table", columns=COLUMNS),
}
COUNT = make_kind("count")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def examples(name: str) -> tuple[Kind, torch.Tensor]:
    spec = SPECS[name]
    return spec.make_kind(), spec.make_kind().example(50, spec.shape, generator())


@pytest.mark.parametrize("name", KINDS)
def test_examples_follow_their_generator(name: str) -> None:
    kind, x = examples(name)
    state = torch.get_rng_state()
    assert torch.equal(x, examples(name)[1]) and torch.equal(state, torch.get_rng_state())
    assert x.dtype == kind.dtype and x.isfinite().all()
    shape = SPECS[name].shape
    assert x.shape == (50, *shape)
    assert not torch.equal(x, kind.example(50, shape, generator(1)))


def test_examples_are_valid() -> None:
    assert 0 <= examples("unit")[1].min() <= examples("unit")[1].max() <= 1
    real = examples("real")[1]
    assert real.min() < -1 and real.max() > 1
    count = examples("count")[1]
    assert count.min() == 0 and count.max() > 3 and torch.equal(count, count.round())
    tokens = examples("tokens")[1]
    assert set(tokens.unique().tolist()) == {1, 2, 3, 4}  # without padding
    table = examples("table")[1]
    assert set(table[:, 1].tolist()) == {0, 1} and set(table[:, 3].tolist()) == set(range(7))
    assert table[:, 0].min() < 0 < table[:, 0].max()


@pytest.mark.parametrize("name", KINDS)
def test_features_have_their_shape(name: str) -> None:
    kind, x = examples(name)
    features = kind.features(x)
    assert features.dtype == torch.float32 and features.shape == (50, *kind.features_shape(tuple(x.shape[1:])))
    assert torch.equal(SPECS[name].features(x), features) and SPECS[name].features_shape == features.shape[1:]


def test_features_hold_all_of_x() -> None:
    for name in ("unit", "real"):
        kind, x = examples(name)
        assert torch.equal(kind.features(x), x)
    torch.testing.assert_close(torch.expm1(COUNT.features(examples("count")[1])), examples("count")[1])
    kind, x = examples("tokens")
    assert torch.equal(kind.features(x).argmax(-1), x) and torch.equal(kind.features(x).sum(-1), torch.ones(50, 9))
    kind, x = examples("table")
    age, sex, income, job = kind.features(x).split([1, 2, 1, 7], 1)
    assert torch.equal(torch.stack([age[:, 0], sex.argmax(1), income[:, 0], job.argmax(1)], 1), x)
    assert (sex.sum(1) == 1).all() and (job.sum(1) == 1).all()


@pytest.mark.parametrize("name", KINDS)
def test_all_values_are_counted(name: str) -> None:
    kind, x = examples(name)
    count = kind.count(x)
    assert count.dtype == torch.float64 and count.tolist() == [math.prod(x.shape[1:])] * 50


def test_padding_is_not_counted() -> None:
    x = torch.tensor([[3, 1, 0, 0], [2, 2, 2, 1], [0, 0, 0, 0]])
    assert make_kind("tokens", 5).count(x).tolist() == [2, 4, 0]


def test_unknown_kind_gets_hint() -> None:
    with pytest.raises(VaezooError, match="no kind of data named 'token'") as e:
        make_kind("token")
    assert e.value.hint == "did you mean 'tokens'?"


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("classes", [(), (4,), (3, 2)])
def test_example_batch_has_labels(name: str, classes: tuple[int, ...]) -> None:
    spec = SPECS[name]
    data = DataSpec(**{f: getattr(spec, f) for f in spec.__slots__} | {"classes": classes})
    x, y = example_batch(data, 40, generator())
    assert x.shape == (40, *data.shape)
    if not classes:
        assert y is None
        return
    assert y is not None and y.dtype == torch.int64 and y.shape == ((40,) if len(classes) == 1 else (40, 2))
    columns = (y.unsqueeze(1) if y.ndim == 1 else y).unbind(1)
    assert [set(c.tolist()) for c in columns] == [set(range(n)) for n in classes]


def test_example_batch_of_another_size() -> None:
    assert example_batch(SPECS["real"], 3, generator(), (2, 11)).x.shape == (3, 2, 11)


NAN = float("nan")


@pytest.mark.parametrize("name", KINDS)
def test_examples_are_accepted(name: str) -> None:
    kind, x = examples(name)
    assert kind.accepts(x) and not kind.accepts(x.double())
    assert kind.accepts(x.new_zeros(x.shape, dtype=torch.uint8)) == (name == "unit")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("unit", [NAN]),
        ("real", [float("inf")]),
        ("count", [-1.0]),
        ("count", [0.5]),
        ("count", [NAN]),
        ("tokens", [5]),
        ("tokens", [-1]),
        ("table", [0.0, 2.0]),
        ("table", [0.0, -1.0]),
        ("table", [0.0, 0.5]),
        ("table", [NAN, 0.0]),
    ],
)
def test_other_values_are_not_accepted(kind: str, value: list[float]) -> None:
    assert not make_kind(kind, 5, ("a:real", "b:2")).accepts(torch.tensor([value]))
