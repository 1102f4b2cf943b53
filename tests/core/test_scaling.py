"""vaezoo.core.scaling: values to x and back."""

import numpy as np
import pytest

from vaezoo.core.scaling import MAX_COLUMNS, Scaling, check_scale, fit
from vaezoo.errors import InputError, VaezooError

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(50, 3), (20, 3, 8), (20, 3, 6, 5)])
@pytest.mark.parametrize("scale", ["minmax", "standardize"])
def test_each_column_or_channel_is_scaled_alone(shape: tuple[int, ...], scale: str) -> None:
    columns = np.array([1e-3, 1.0, 5e6]).reshape(-1, *[1] * (len(shape) - 2))
    values = columns * (100 + RNG.random(shape))
    scaling = fit(scale, values)
    x, axes = scaling.apply(values), (0, *range(2, len(shape)))
    assert x.dtype == np.float32 and x.shape == shape and scaling.name == scale
    if scale == "minmax":
        assert x.min(axes).tolist() == [0, 0, 0] and x.max(axes).tolist() == [1, 1, 1]
    else:
        assert np.allclose(x.mean(axes), 0, atol=1e-5) and np.allclose(x.std(axes), 1, atol=1e-5)
    assert np.allclose(scaling.invert(x), values, rtol=1e-6)


@pytest.mark.parametrize("scale", ["minmax", "standardize"])
def test_full_range_integers_keep_their_order(scale: str) -> None:
    """The smallest and the largest int16 differ by more than an int16 holds."""
    values = RNG.integers(-32768, 32768, (2000, 2)).astype(np.int16)
    values[:2, 0] = -32768, 32767
    x = fit(scale, values).apply(values)
    assert np.corrcoef(x[:, 0], values[:, 0].astype(float))[0, 1] == pytest.approx(1)
    assert np.array_equal(np.argsort(x[:, 1], kind="stable"), np.argsort(values[:, 1], kind="stable"))


def test_a_large_mean_leaves_the_digits_of_the_deviation() -> None:
    """Seconds since 1970: float32 resolves 128 of them."""
    values = 1.7e9 + RNG.standard_normal((1000, 1))
    x = fit("standardize", values).apply(values)
    assert np.corrcoef(x[:, 0], values[:, 0])[0, 1] == pytest.approx(1) and x.std() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("value", [0.0, 0.1, -3e8, 1e-300])
@pytest.mark.parametrize("scale", ["minmax", "standardize"])
def test_a_constant_column_becomes_zero(scale: str, value: float) -> None:
    values = np.full((30, 2), value)
    values[:, 1] = np.arange(30)
    scaling = fit(scale, values)
    x = scaling.apply(values)
    assert x[:, 0].tolist() == [0.0] * 30 and scaling.factor[0] == 1
    assert np.array_equal(scaling.invert(x)[:, 0], values[:, 0])


def test_values_beyond_the_range_are_not_clipped() -> None:
    scaling = fit("minmax", np.array([[0.0], [10.0]]))
    assert scaling.apply(np.array([[-5.0], [40.0]])).tolist() == [[-0.5], [4.0]]


def test_data_without_a_scaling_are_returned() -> None:
    x = RNG.random((3, 2)).astype(np.float32)
    assert fit("none", x) == Scaling("real") and fit("unit", x) == Scaling()
    assert Scaling().invert(x) is x and np.array_equal(Scaling("real").apply(x), x)


def test_an_empty_batch_stays_empty() -> None:
    scaling = fit("minmax", RNG.random((5, 2)))
    assert scaling.apply(np.zeros((0, 2))).shape == (0, 2) and scaling.invert(np.zeros((0, 2))).shape == (0, 2)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.array([[-1.5e308], [1.5e308]]), "range float64 cannot hold"),
        (np.zeros((1, MAX_COLUMNS + 1), np.float32), "too many to scale"),
    ],
)
def test_ranges_without_a_scaling(values: np.ndarray, words: str) -> None:
    with pytest.raises(InputError, match=words):
        fit("minmax", values)


def test_unfit_values() -> None:
    scaling = fit("standardize", RNG.random((5, 2)))
    with pytest.raises(InputError, match=r"shape \(3,\), but the scaling is that of 2 columns"):
        scaling.apply(np.zeros((4, 3)))
    with pytest.raises(InputError, match="float32 cannot hold"):
        Scaling("real").apply(np.array([[1e200]]))
    with pytest.raises(VaezooError, match="no scaling named 'standardise'") as error:
        check_scale("standardise")
    assert "standardize" in error.value.hint
