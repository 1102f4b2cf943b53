"""Options of a config: text, JSON, and invalid values."""

from dataclasses import dataclass
from typing import Literal

import pytest

from vaezoo.core.option_values import show_value
from vaezoo.core.options import config_json, configure, options_of
from vaezoo.errors import VaezooError


@dataclass(frozen=True, kw_only=True)
class Config:
    """A config.

    Attributes:
        count: Number of
            things.
        rate: Speed.

    Raises:
        count: never.
    """

    count: int = 3
    rate: float = 0.5
    flag: bool = False
    word: str = "a"
    kind: Literal["x", "y"] = "x"
    sizes: tuple[int, ...] = (4, 5)
    limit: float | None = None


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("count", "7", 7),
        ("count", -2, -2),
        ("rate", "1e-3", 1e-3),
        ("rate", 2, 2.0),
        ("flag", "true", True),
        ("flag", "Off", False),
        ("word", "b=c", "b=c"),
        ("kind", "y", "y"),
        ("sizes", "400", (400,)),
        ("sizes", "4,3,2", (4, 3, 2)),
        ("sizes", "", ()),
        ("sizes", [1, 2], (1, 2)),
        ("limit", "2.5", 2.5),
        ("limit", "none", None),
        ("limit", None, None),
    ],
)
def test_values_are_converted(name, text, value):
    converted = getattr(configure(Config(), {name: text}), name)
    assert converted == value and type(converted) is type(value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("count", "1.5"),
        ("count", "x"),
        ("count", 1.5),
        ("count", True),
        ("count", "9" * 5000),
        ("rate", "nan"),
        ("rate", "inf"),
        ("flag", "maybe"),
        ("kind", "z"),
        ("sizes", "1,x"),
        ("sizes", "1.5"),
        ("limit", "some"),
        ("word", 3),
    ],
)
def test_wrong_types_are_refused(name, text):
    with pytest.raises(VaezooError) as e:
        configure(Config(), {name: text})
    assert f"option '{name}' takes" in e.value.message and f"{name}=" in e.value.hint


def test_unknown_option_suggests_nearest():
    with pytest.raises(VaezooError) as e:
        configure(Config(), {"cuont": "1"})
    assert e.value.hint == "did you mean 'count'?"


def test_config_round_trips_through_json():
    changed = configure(Config(), {"sizes": "9", "limit": 1.0})
    assert configure(Config(), config_json(changed)) == changed
    assert config_json(changed)["sizes"] == [9]


def test_options_are_described():
    described = {option.name: option for option in options_of(Config())}
    assert described["sizes"].type == "integers separated by commas"
    assert described["kind"].type == "one of x, y"
    assert described["limit"].type == "a number or none"
    assert (described["count"].help, described["flag"].help) == ("Number of things.", "")
    typed = {name: show_value(option.default) for name, option in described.items()}
    assert configure(Config(), typed) == Config()
