"""vaezoo.data.series.sines: frequency, phase and noise of the generated series."""

import numpy as np
import torch

from vaezoo.data.series import sines


def test_shapes_and_types():
    spec, train, test = sines.load()
    assert (spec.kind, spec.shape, spec.likelihood) == ("real", (2, 32), "gaussian:learned")
    assert train.x.shape == (5_000, 2, 32) and test.x.shape == (1_000, 2, 32)
    assert all(split.x.dtype == torch.float32 and spec.make_kind().accepts(split.x) for split in (train, test))


def test_seed_fixes_the_series():
    (_, train, test), (_, again, test_again), (_, other, _) = (sines.load(seed) for seed in (0, 0, 1))
    assert train.x.equal(again.x) and test.x.equal(test_again.x)
    assert not train.x.equal(other.x) and not train.x[:1_000].equal(test.x)


def test_series_are_as_documented():
    """A line is fitted to the angle of each series. Its slope is the frequency, its intercept the phase."""
    x = sines.load()[1].x.double().numpy()
    angle = np.unwrap(np.arctan2(x[:, 0], x[:, 1]), axis=1)
    time = np.arange(sines.LENGTH) / sines.LENGTH
    slope, phase = np.polyfit(time, angle.T, 1)
    frequency = slope / (2 * np.pi)
    low, high = sines.FREQUENCIES
    assert low - 0.05 < frequency.min() < low + 0.05 and high - 0.05 < frequency.max() < high + 0.05
    assert abs(frequency.mean() - (low + high) / 2) < 0.05  # uniform: four standard errors
    assert abs(frequency.std() - (high - low) / 12**0.5) < 0.03
    assert abs(np.exp(1j * phase).mean()) < 0.05  # no phase is more common than its opposite
    fitted = np.stack([f(np.outer(slope, time) + phase[:, None]) for f in (np.sin, np.cos)], 1)
    # The fit of two numbers takes up a little of the noise in 64 values.
    assert abs((x - fitted).std() - 0.1) < 0.003
