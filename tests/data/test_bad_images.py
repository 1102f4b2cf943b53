"""Unreadable images: an error names all of them, or all are left out."""

from __future__ import annotations

import io
import traceback
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vaezoo import TrainConfig, load, load_data, train
from vaezoo.data.images import image_folder
from vaezoo.data.images.image_headers import BadImagesError
from vaezoo.data.images.streamed import StreamedImages
from vaezoo.errors import InputError, VaezooError, VaezooWarning

RNG = np.random.default_rng(0)


def image(mode: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (12, 16, 3), dtype=np.uint8)).convert(mode).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def bad_set(tmp_path: Path) -> Path:
    """Images of two classes in two splits. Every fifth is damaged, in its header or behind it."""
    for split, count in (("train", 20), ("test", 5)):
        for name in ("ape", "zebra"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                content = image("RGB" if i % 2 else "L")
                if i % 5 == 3:
                    content = content[: len(content) // 2] if name == "ape" else b""
                (tmp_path / split / name / f"{i:02}.png").write_bytes(content)
    return tmp_path


def is_bad(path: Path) -> bool:
    return int(path.stem) % 5 == 3


def test_error_lists_all_files(bad_set: Path) -> None:
    with pytest.raises(InputError, match=r"10 of 50 images .* and 7 more") as caught:
        load_data(bad_set)
    assert "--on-bad-image skip" in caught.value.hint
    bad = [path for split in ("train", "test") for path in sorted((bad_set / split).rglob("*.png")) if is_bad(path)]
    assert isinstance(caught.value, BadImagesError) and [path for path, _ in caught.value.files] == bad
    text = "".join(traceback.format_exception(caught.value))
    assert all(f"{str(path)!r}: " in text for path in bad)


@pytest.mark.parametrize("stream", [False, True, None])
def test_skip_leaves_out_bad_images(bad_set: Path, stream: bool | None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.warns(VaezooWarning, match=r"10 of 50 .*train/ape/03.png .* and 7 more; they are left out") as caught:
        data = load_data(bad_set, on_bad_image="skip", stream=stream)
    assert len(caught) == 1
    for path in filter(is_bad, sorted(bad_set.rglob("*.png"))):
        path.unlink()
    expected = load_data(bad_set)
    assert data.spec == expected.spec and data.test is not None and expected.test is not None
    for actual, wanted in ((data.train, expected.train), (data.valid, expected.valid), (data.test, expected.test)):
        assert isinstance(actual, StreamedImages) == bool(stream)
        a, b = actual.gather(slice(None)), wanted.gather(slice(None))
        assert a.y is not None and b.y is not None and a.x.equal(b.x) and a.y.equal(b.y)


def test_empty_class_keeps_its_index(bad_set: Path) -> None:
    for path in (bad_set / "train" / "ape").iterdir():
        path.write_bytes(b"")
    with pytest.warns(VaezooWarning):
        train, *_ = image_folder.load(bad_set, None, skip=True)
    assert train.y is not None and set(train.y.tolist()) == {1}


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("stream", [False, True])
def test_empty_split_is_an_error(bad_set: Path, split: str, stream: bool) -> None:
    for path in (bad_set / split).rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(BadImagesError, match="of 50 images") as caught:
        image_folder.load(bad_set, None, stream, skip=True)
    assert "skip" not in caught.value.hint


def test_good_folders_give_no_warning(bad_set: Path) -> None:
    for path in filter(is_bad, bad_set.rglob("*.png")):
        path.unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_data(bad_set, on_bad_image="skip")


def test_skip_is_kept_in_runs(bad_set: Path) -> None:
    with pytest.warns(VaezooWarning):
        data = load_data(bad_set, on_bad_image="skip", image_size=8)
    assert data.source is not None and data.source.on_bad_image == "skip"
    run = train("mlp-vae", data, config=TrainConfig(steps=1, batch_size=4), out=bad_set / "run")
    with pytest.warns(VaezooWarning):
        again = load(run.path).load_data()
    assert again.source == replace(data.source, likelihood=data.spec.likelihood)  # a run keeps its likelihood
    assert again.train.gather(slice(None)).x.equal(data.train.gather(slice(None)).x)


@pytest.mark.parametrize(
    ("data", "choice", "message", "hint"),
    [
        ("digits", "skip", "'digits' has no images to skip", "leave out --on-bad-image"),
        ("x.npy", "skip", "x.npy' has no images to skip", "leave out --on-bad-image"),
        ("digits", "skp", "on_bad_image 'skp' is not known", "did you mean 'skip'?"),
        ("digits", "ignore", "on_bad_image 'ignore' is not known", "use error or skip"),
    ],
)
def test_invalid_choices(inside: Path, data: str, choice: str, message: str, hint: str) -> None:
    np.save("x.npy", np.zeros((4, 4)))
    with pytest.raises(VaezooError, match=message) as caught:
        load_data(data, on_bad_image=choice)
    assert caught.value.hint == hint
