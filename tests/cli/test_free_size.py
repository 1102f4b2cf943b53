"""Commands on images and latents of any size: their own size, tiles, padding."""

import numpy as np
import pytest
from PIL import Image

import vaezoo
from vaezoo.evaluation.full_size import find_images, reconstruct_files

pytestmark = pytest.mark.usefixtures("inside")


@pytest.mark.slow
def test_files_keep_their_size(free_size_export, tmp_path, run_ok):
    (tmp_path / "photos" / "a").mkdir(parents=True)
    sizes = {"a/one.png": (70, 53), "two.jpg": (33, 64)}
    for name, size in sizes.items():
        Image.effect_noise(size, 60).convert("RGB").save(tmp_path / "photos" / name)
    options = ("--keep-size", "--tile", 32, "--overlap", 16, "--pad", "reflect")
    assert run_ok("reconstruct", free_size_export, "--data", "photos", *options, "--out", "new") == "new\n"
    for name, size in sizes.items():
        assert Image.open((tmp_path / "new" / name).with_suffix(".png")).size == size
    model = vaezoo.runtime.load(free_size_export)
    (name, pixels), _ = reconstruct_files(model, find_images("photos"), tile=32, overlap=16, pad="reflect")
    assert name == "a/one.png"
    np.testing.assert_array_equal(pixels, np.asarray(Image.open("new/a/one.png")))


@pytest.mark.slow
def test_latents_of_any_size_are_decoded_in_tiles(free_size_export, run_ok):
    z = np.random.default_rng(0).standard_normal((2, 4, 20, 12)).astype(np.float32)
    np.save("z.npy", z)
    run_ok("sample", free_size_export, "--z", "z.npy", "--tile", 32, "--overlap", 16, "--out", "x.npy")
    expected = vaezoo.runtime.load(free_size_export).decode(z, tile=32, overlap=16)
    np.testing.assert_array_equal(np.load("x.npy"), expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--keep-size"], "--keep-size needs image files"),
        (["--keep-size", "--data", "photo.png", "-n", 3], "--keep-size does not go with"),
        (["--tile", 32], "are for images in their own size"),
        (["--keep-size", "--data", "photo.png", "--overlap", 8], "--overlap has no effect without --tile"),
        (["--keep-size", "--data", "photo.png"], "x has height 21"),
        (["--keep-size", "--data", "nothing"], "is not an image, and holds none"),
    ],
)
def test_wrong_options_of_sizes(free_size_export, run, arguments, words):
    Image.new("RGB", (32, 21)).save("photo.png")
    (free_size_export.parent / "nothing").mkdir(exist_ok=True)
    arguments = [free_size_export.parent / "nothing" if a == "nothing" else a for a in arguments]
    code, _, err = run("reconstruct", free_size_export, *arguments, "--out", "new")
    assert code != 0 and words in err and "hint: " in err
    assert not (free_size_export.parent / "new").exists()


@pytest.mark.slow
def test_a_run_has_one_size(trained, run):
    Image.new("L", (32, 32)).save("photo.png")
    code, _, err = run("reconstruct", trained.path, "--keep-size", "--data", "photo.png", "--out", "new")
    assert code != 0 and "images of the size of its data only" in err
