"""vaezoo.data.images.sprites: the images follow the factors."""

import pytest
import torch
from torch import Tensor

from vaezoo.data.images import sprites
from vaezoo.errors import VaezooError

NAMES = list(sprites.FACTORS)


def factors(**values: int) -> Tensor:
    return torch.tensor([[values.get(name, 0) for name in NAMES]])


def traverse(name: str, **values: int) -> Tensor:
    """Returns all values of one factor with the others fixed, `(n, 5)`."""
    return torch.cat([factors(**values, **{name: i}) for i in range(sprites.FACTORS[name])])


def centre_of_mass(x: Tensor) -> Tensor:
    """Returns it in pixels, `(N, 2)`, x before y."""
    x = x[:, 0].double()
    position = torch.arange(x.shape[-1]) + 0.5
    mass = x.sum((1, 2))
    return torch.stack([(x.sum(1) * position).sum(1) / mass, (x.sum(2) * position).sum(1) / mass], dim=1)


def test_shapes_and_types() -> None:
    train, test = sprites.load(image_size=16)
    for split, n in ((train, 20_000), (test, 2_000)):
        assert split.x.shape == (n, 1, 16, 16) and split.x.dtype == torch.uint8
        assert split.y is not None and split.y.shape == (n, 5) and split.y.dtype == torch.int64
        assert [sorted(set(split.y[:, k].tolist())) for k in range(5)] == [
            list(range(n)) for n in sprites.FACTORS.values()
        ]


def test_seed_fixes_the_images() -> None:
    (train, test), (again, test_again), (other, _) = (sprites.load(image_size=8, seed=s) for s in (0, 0, 1))
    assert train.x.equal(again.x) and test.x.equal(test_again.x)
    assert train.y is not None and test.y is not None and other.y is not None
    assert not train.y.equal(other.y)
    assert not train.y[: len(test)].equal(test.y)


def test_images_match_their_factors() -> None:
    train, _ = sprites.load(image_size=16)
    assert train.y is not None
    assert train.x[5000:5100].equal(sprites.render(train.y[5000:5100], 16))


@pytest.mark.parametrize("shape", range(3))
@pytest.mark.parametrize(("name", "axis"), [("x", 0), ("y", 1)])
def test_position_moves_only_the_centre(shape: int, name: str, axis: int) -> None:
    images = sprites.render(traverse(name, shape=shape, scale=2, rotation=5), 64)
    steps = centre_of_mass(images).diff(dim=0)
    width = 64 * (1 - 2 * (sprites.RADII[1] + sprites.MARGIN)) / 15
    assert torch.allclose(steps[:, axis], torch.tensor(width).double(), atol=0.05)
    assert torch.allclose(steps[:, 1 - axis], torch.tensor(0.0).double(), atol=0.05)


@pytest.mark.parametrize("shape", range(3))
def test_scale_enlarges(shape: int) -> None:
    areas = sprites.render(traverse("scale", shape=shape, x=7, y=8), 64).double().sum((1, 2, 3)) / 255
    assert (areas.diff() > 0).all()
    assert areas[-1] / areas[0] == pytest.approx((sprites.RADII[1] / sprites.RADII[0]) ** 2, rel=0.02)


@pytest.mark.parametrize("shape", range(3))
def test_rotation_keeps_the_area(shape: int) -> None:
    areas = sprites.render(traverse("rotation", shape=shape, scale=5, x=7, y=7), 64).double().sum((1, 2, 3))
    assert torch.allclose(areas, areas.mean(), rtol=0.01)


def test_areas_match_the_shapes() -> None:
    radius = 128 * sprites.RADII[1]
    images = sprites.render(traverse("shape", scale=5, x=7, y=7), 128)
    square, ellipse, _ = (images.double().sum((1, 2, 3)) / 255 / radius**2).tolist()
    assert square == pytest.approx(2, rel=0.01)
    assert ellipse == pytest.approx(torch.pi / 2, rel=0.01)


@pytest.mark.slow
def test_combinations_differ_and_fit() -> None:
    rows = torch.cartesian_prod(*(torch.arange(n) for n in sprites.FACTORS.values()))
    images = sprites.render(rows, 64)[:, 0]
    border = torch.cat([images[:, [0, -1]].flatten(1), images[:, :, [0, -1]].flatten(1)], dim=1)
    assert not border.any()
    assert len({image.tobytes() for image in images.numpy()}) == len(rows)


@pytest.mark.parametrize("image_size", [4, 5, 28, 129])
def test_any_image_size(image_size: int) -> None:
    rows = torch.cat([factors(shape=s, scale=5, x=x, y=y) for s in range(3) for x in (0, 15) for y in (0, 15)])
    images = sprites.render(rows, image_size)
    assert images.shape == (12, 1, image_size, image_size)
    # A sprite in a corner is the mirror image of the one in the opposite corner, if the shape is symmetric.
    assert images[0].equal(images[3].flip(1, 2))


@pytest.mark.parametrize("rows", [factors(shape=3), factors(x=-1), torch.zeros(1, 4).long(), torch.zeros(5).long()])
def test_factors_out_of_range(rows: Tensor) -> None:
    with pytest.raises(VaezooError, match="out of range") as error:
        sprites.render(rows, 64)
    assert "rotation 0..11" in error.value.hint
