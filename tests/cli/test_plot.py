"""vaezoo plot: the images of each kind, and invalid requests."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vaezoo.plots
from vaezoo import Batch, TrainConfig, from_arrays, load_data, train
from vaezoo.core import image_grids
from vaezoo.core.dependencies import install_hint
from vaezoo.evaluation import latents

CELL, GAP = 56, 2  # pixels of an enlarged digit, and of the line between two


@pytest.fixture(scope="module")
def plane(digits, tmp_path_factory):
    """A run with two latent dimensions."""
    out = tmp_path_factory.mktemp("runs") / "plane"
    return train("mlp-vae", digits, options={"latent_dim": 2}, config=TrainConfig(steps=30, batch_size=50), out=out)


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    """A run on vectors with labels, from arrays."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("vectors")
    np.savez(folder / "v.npz", x=rng.random((80, 9), np.float32), y=rng.integers(0, 2, 80))
    data = load_data(str(folder / "v.npz"))
    return train("mlp-vae", data, config=TrainConfig(steps=2, batch_size=8), out=folder / "run")


@pytest.fixture
def plot(run, inside):
    """Returns a function that plots, which must succeed: the image."""

    def plot(model, kind, *arguments):
        path = getattr(model, "path", model)
        code, out, err = run("plot", path, "--kind", kind, *arguments, "--out", "p.png")
        assert code == 0, err
        assert out.strip() == "p.png"
        with Image.open("p.png") as image:
            image.load()
        return image

    return plot


@pytest.fixture
def refused(run, inside):
    """Returns a function that plots, which must fail: error and hint."""

    def refused(code, model, kind, *arguments):
        path = getattr(model, "path", model)
        actual, out, err = run("plot", path, "--kind", kind, *arguments, "--out", "none.png")
        lines = err.splitlines()
        assert (actual, out, len(lines)) == (code, "", 2), err
        assert not Path("none.png").exists()
        return lines[0].removeprefix("vaezoo: error: "), lines[1].removeprefix("hint: ")

    return refused


def cells(image, rows, columns):
    """Cuts an annotated grid of digits into its cells, uint8 `(rows, columns, 28, 28)`."""
    pixels = np.asarray(image)
    right, bottom = image.width, image.height
    left, top = right - columns * (CELL + GAP), bottom - rows * (CELL + GAP)
    return np.stack(
        [
            [pixels[top + r * (CELL + GAP) :, left + c * (CELL + GAP) :][:CELL:2, :CELL:2] for c in range(columns)]
            for r in range(rows)
        ]
    )


def levels(images):
    """Returns images `(..., 1, 28, 28)` in [0, 1] as uint8 `(..., 28, 28)`."""
    return image_grids.as_bytes(images.flatten(0, -4).numpy())[..., 0].reshape(*images.shape[:-3], 28, 28)


def test_kinds_equal_commands(plot, run, trained):
    for kind, command in (("samples", "sample"), ("reconstructions", "reconstruct")):
        plot(trained, kind, "-n", 5)
        assert run(command, trained.path, "-n", 5, "--out", "c.png")[0] == 0
        assert Path("p.png").read_bytes() == Path("c.png").read_bytes()


def test_manifold_shows_decoded_grid(plot, plane):
    image = plot(plane, "manifold", "-n", 8)
    assert image.mode == "L"
    expected, _ = latents.manifold(plane.vae, 8)
    assert np.array_equal(cells(image, 8, 8), levels(expected))
    assert plot(plane, "manifold").width > 15 * CELL


def test_traversal_rows_vary_one_dimension(plot, trained, plane):
    actual = cells(plot(plane, "traversals", "-n", 5, "--seed", 3), 2, 5)
    test = load_data("digits").test
    index = torch.randperm(len(test), generator=torch.Generator().manual_seed(3))[:1]
    example = test.select(index).batch(slice(None))
    assert np.array_equal(actual, levels(latents.traversal(plane.vae, example, [0, 1], torch.linspace(-3, 3, 5))))
    image = plot(trained, "traversals", "-n", 3, "--dims", "7,0")
    assert cells(image, 2, 3).shape[:2] == (2, 3) and image.height < 3 * (CELL + GAP)


def test_traversal_animation_goes_both_ways(run, plane, inside):
    shutil.copytree(plane.path, "r")
    code, out, _ = run("plot", "r", "--kind", "traversals")
    assert code == 0 and out.split() == ["r/traversals.png", "r/traversals.gif"]
    with Image.open("r/traversals.gif") as image:
        assert (image.format, image.n_frames, image.info["loop"]) == ("GIF", 48, 0)
        frames = []
        for i in range(48):
            image.seek(i)
            frames.append(np.asarray(image.convert("L")))
    assert all(np.array_equal(frames[i], frames[48 - i]) for i in range(1, 24))
    assert np.array_equal(frames[24][-CELL - GAP : -GAP : 2, GAP : GAP + CELL : 2], last_traversal(plane))
    assert not np.array_equal(frames[0][-CELL:], frames[24][-CELL:])


def last_traversal(plane):
    """Returns the held-out image of seed 0, with its last latent dimension at 3."""
    test = load_data("digits").test
    index = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))[:1]
    example = test.select(index).batch(slice(None))
    return levels(latents.traversal(plane.vae, example, [1], torch.tensor([3.0])))[0, 0]


def test_interpolation_starts_at_reconstructions(plot, trained):
    actual = cells(plot(trained, "interpolation", "-n", 3), 3, 11)
    ends = torch.from_numpy(actual[:, [0, -1]]).unsqueeze(2).float() / 255
    for side, column in ((0, 1), (1, -2)):
        with torch.no_grad():
            assert np.abs(levels(trained.vae.reconstruct(ends[:, side])) - actual[:, column].astype(int)).max() <= 1
    other = cells(plot(trained, "interpolation", "-n", 3, "--seed", 1), 3, 11)
    assert not np.array_equal(actual, other)


def test_attribute_vector_adds_label(plot, trained):
    actual = cells(plot(trained, "attribute-vector", "--label", 1, "-n", 5), 5, 6)
    x = torch.from_numpy(actual[:, 0]).unsqueeze(1).float() / 255
    test = load_data("digits").test
    labels = [int(test.y[(test.x[:, 0] == torch.from_numpy(image)).flatten(1).all(1)][0]) for image in actual[:, 0]]
    assert [label == 1 for label in labels] == [False] * 3 + [True] * 2
    with torch.no_grad():
        assert np.abs(levels(trained.vae.reconstruct(x)) - actual[:, 3].astype(int)).max() <= 1
    images = torch.from_numpy(actual[:3, 1:].reshape(-1, 1, 28, 28)).float() / 255
    codes = latents.encode(trained.vae, Batch(images))
    train = load_data("digits").train.subsample(2000)
    direction = latents.attribute_direction(latents.encode(trained.vae, train.batch(slice(None))), train.y, 1)
    along = (codes @ direction).view(3, 5).mean(0)
    assert torch.all(along[1:] > along[:-1])  # the amounts increase


def test_factor_must_be_chosen(plot, refused, tmp_path_factory):
    folder = tmp_path_factory.mktemp("factors")
    factors = np.arange(120)[:, None] % [3, 2]
    np.savez(folder / "f.npz", x=np.random.default_rng(0).random((120, 1, 8, 8), np.float32), y=factors)
    data = load_data(str(folder / "f.npz"))
    run = train("mlp-vae", data, config=TrainConfig(steps=2, batch_size=8), out=folder / "run")
    for arguments in (["latents"], ["latents", "--factor", 2], ["attribute-vector", "--label", 0]):
        error, hint = refused(2, run, *arguments)
        assert "2 labels per example" in error and "--factor 0 to 1" in hint
    plot(run, "latents", "--factor", 1, "-n", 50)
    plot(run, "attribute-vector", "--factor", 0, "--label", 2)
    error, hint = refused(2, run, "attribute-vector", "--factor", 0, "--label", 3)
    assert "no example has label 3" in error and "[0, 1, 2]" in hint


def record_calls(monkeypatch, name):
    """Returns a list of the arguments of each call of a function that draws a chart."""
    from vaezoo.plots import figures

    calls = []
    real = getattr(figures, name)
    monkeypatch.setattr(figures, name, lambda *arguments: (calls.append(arguments), real(*arguments))[1])
    return calls


def test_two_latents_are_not_projected(plot, plane, monkeypatch):
    calls = record_calls(monkeypatch, "latent_scatter")
    image = plot(plane, "latents", "-n", 300)
    assert image.size == (840, 720)
    test = load_data("digits").test.subsample(300)
    points, labels, label_name, title, axes, names = calls[0]
    assert label_name == "label" and names == ()
    assert torch.equal(points, latents.encode(plane.vae, test.batch(slice(None)))) and torch.equal(labels, test.y)
    assert axes == ("z0", "z1") and "300 test examples" in title
    pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert len(np.unique(pixels[np.ptp(pixels.astype(int), axis=1) > 60], axis=0)) > 9  # one colour per label


def test_more_latents_are_projected(plot, trained, vectors, monkeypatch):
    calls = record_calls(monkeypatch, "latent_scatter")
    plot(trained, "latents", "-n", 100)
    plot(vectors, "latents")
    for (points, _, _, title, axes, _), dims in zip(calls, (16, 20), strict=True):
        assert points.shape[1] == 2 and f"2 principal components of {dims} latent dimensions" in title
        assert "% of the variance" in axes[0]


@pytest.fixture
def lines(monkeypatch):
    """The points of each line that is drawn, by the number of its axes and its label."""
    from matplotlib.axes import Axes

    points = {}
    real = Axes.plot

    def record(ax, x, y, *arguments, **settings):
        points[ax.get_subplotspec().num1, settings["label"]] = list(zip(x, y, strict=True))
        return real(ax, x, y, *arguments, **settings)

    monkeypatch.setattr(Axes, "plot", record)
    return points


def test_curves_show_reports(plot, trained, lines):
    assert plot(trained, "learning-curves").width > 1200
    reports = [json.loads(line) for line in (trained.path / "metrics.jsonl").read_text().splitlines()]
    for number, (term, sign) in enumerate((("elbo", -1), ("reconstruction", 1), ("kl", 1))):
        for split in ("train", "valid"):
            expected = [(r["step"], sign * r[term]) for r in reports if r["split"] == split]
            assert lines[number, split] == expected and expected


def test_single_report_is_a_dot(plot, trained, inside):
    shutil.copytree(trained.path, "r")
    log = [json.loads(line) for line in Path("r/metrics.jsonl").read_text().splitlines()]
    first = next(report for report in log if report["split"] == "train")
    Path("r/metrics.jsonl").write_text(json.dumps(first) + "\n")
    pixels = np.asarray(plot("r", "learning-curves").convert("RGB")).astype(int)
    blue = np.abs(pixels - (0x1F, 0x77, 0xB4)).sum(2) < 30
    assert blue[:, : blue.shape[1] // 3].any() and blue[:, -blue.shape[1] // 3 :].any()  # the last panel has no legend


def test_pretrained_has_only_valid_curve(plot, lines):
    plot("mlp-vae-mnist", "learning-curves")
    assert {name for _, name in lines} == {"valid"}


def test_names_are_not_formulas(run, trained, inside):
    folder = Path(r"$\x$")
    shutil.copytree(trained.path, folder)
    code, _, err = run("plot", folder, "--kind", "learning-curves")
    assert code == 0, err


def test_incomplete_report_is_left_out(plot, trained):
    shutil.copytree(trained.path, "r")
    plot("r", "learning-curves")
    whole = Path("p.png").read_bytes()
    with Path("r/metrics.jsonl").open("a") as f:
        f.write('{"split": "train", "step": 9')
    plot("r", "learning-curves")
    assert Path("p.png").read_bytes() == whole


@pytest.mark.parametrize(
    ("log", "error"), [(None, "metrics.jsonl"), ("", "no reports yet"), ("{}\nx\n", "damaged"), ("[1]\n", "damaged")]
)
def test_curves_need_a_log(refused, trained, inside, log, error):
    shutil.copytree(trained.path, "r")
    Path("r/metrics.jsonl").unlink()
    if log is not None:
        Path("r/metrics.jsonl").write_text(log)
    assert error in refused(3, "r", "learning-curves")[0]


class WithoutMatplotlib:
    """An import hook that hides matplotlib, as if it were not installed."""

    def find_spec(self, name, path=None, target=None):
        if name == "matplotlib":
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)


def test_missing_matplotlib_names_extra(refused, trained, monkeypatch):
    monkeypatch.delitem(sys.modules, "vaezoo.plots.figures", raising=False)
    monkeypatch.delattr(vaezoo.plots, "figures", raising=False)
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [WithoutMatplotlib(), *sys.meta_path])
    for kind in ("latents", "learning-curves"):
        error, hint = refused(2, trained, kind)
        assert "needs matplotlib" in error and hint == install_hint("plot")


@pytest.mark.parametrize(
    ("kind", "arguments", "error", "hint"),
    [
        ("manifold", [], "2 latent dimensions", "latent_dim=2"),
        ("manifold", ["-n", "101"], "-n 101 is too large", "give 1 to 100"),
        ("manifold", ["--dims", "1"], "--dims has no effect on manifold", "leave out --dims"),
        ("manifold", ["--data", "digits"], "--data has no effect", "leave out --data"),
        ("learning-curves", ["-n", "3"], "-n has no effect on learning-curves", "leave out -n"),
        ("traversals", ["--dims", "x"], "--dims takes integers, not 'x'", "--dims 0,3"),
        ("traversals", ["--dims", "16"], "no latent dimension 16", "from 0 to 15"),
        ("traversals", ["--dims", ",".join("0" * 101)], "101 latent dimensions are too many", "--dims 0,1,2"),
        ("attribute-vector", [], "an attribute vector needs a label", "[0, 1, 2"),
        ("attribute-vector", ["--label", "10"], "no example has label 10", "[0, 1, 2"),
        ("attribute-vector", ["--label", "1", "--factor", "0"], "one label per example", "leave out --factor"),
        ("image", [], "no plot kind named 'image'", "use samples, reconstructions"),
    ],
)
def test_invalid_input_is_refused(refused, trained, kind, arguments, error, hint):
    actual = refused(2, trained, kind, *arguments)
    assert error in actual[0] and hint in actual[1]


def test_some_kinds_need_labels(refused, trained, inside):
    Path("images").mkdir()
    for i in range(30):
        Image.new("L", (28, 28), 8 * i).save(f"images/{i}.png")
    for arguments in (["latents", "--factor", "0"], ["attribute-vector", "--label", "1"]):
        error, hint = refused(2, trained, *arguments, "--data", "images")
        assert "no labels" in error and "digits" in hint


def test_latents_without_labels_have_one_colour(plot, plane):
    np.save("new.npy", np.random.default_rng(0).random((50, 1, 28, 28), np.float32))
    pixels = np.asarray(plot(plane, "latents", "--data", "new.npy").convert("RGB")).reshape(-1, 3)
    colours, counts = np.unique(pixels[np.ptp(pixels, axis=1) > 40], axis=0, return_counts=True)
    blue = colours[:, 2].astype(int) - colours[:, 0]
    assert len(counts) and (blue > 0).all()  # points are blue; text, axes and background are grey


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["traversals", "interpolation", "attribute-vector"])
def test_codes_have_no_lines(refused, digits, inside, kind):
    run = train("vq-vae", digits, config=TrainConfig(steps=1, batch_size=50), options={"channels": "4,4"}, out="run")
    error, hint = refused(2, run, kind, *(["--label", "1"] if kind == "attribute-vector" else []))
    assert "whole numbers" in error and "samples" in hint


@pytest.mark.parametrize("kind", ["samples", "reconstructions"])
def test_vectors_are_not_drawn(refused, vectors, kind):
    arguments = ["--data", "vectors.npy"] if kind == "reconstructions" else []
    np.save("vectors.npy", np.random.default_rng(0).random((40, 9), np.float32))
    error, hint = refused(2, vectors, kind, *arguments)
    assert "(9,), which is not an image" in error and "images" in hint


@pytest.mark.parametrize("kind", ["traversals", "interpolation", "manifold", "attribute-vector"])
def test_vectors_are_not_images(refused, vectors, kind):
    assert "(9,)" in refused(2, vectors, kind)[0]


def test_latents_need_two_dimensions(refused, digits, tmp_path_factory):
    config = TrainConfig(steps=1, batch_size=8)
    run = train("mlp-vae", digits, options={"latent_dim": 1}, config=config, out=tmp_path_factory.mktemp("o") / "r")
    assert "has 1" in refused(2, run, "latents")[0]


def test_interpolation_needs_two_images(refused, digits, tmp_path_factory):
    x = digits.train.batch(slice(0, 12)).x.numpy()
    np.save(file := tmp_path_factory.mktemp("one") / "x.npy", x[:1])
    data = from_arrays(x)
    run = train("mlp-vae", data, config=TrainConfig(steps=1, batch_size=4), out=file.parent / "r")
    assert "there is 1 image" in refused(2, run, "interpolation", "--data", file)[0]


def test_some_kinds_need_a_run(refused, inside):
    Path("export").mkdir()
    for file in ("manifest.json", "encoder.onnx", "decoder.onnx"):
        Path("export", file).touch()
    for kind in ("traversals", "latents", "learning-curves"):
        error, hint = refused(2, "export", kind)
        assert "is an export" in error and "run folder" in hint


def test_suffix_chooses_format(run, trained, inside):
    for kind, error in (("samples", "must be PNG"), ("traversals", "must be PNG or GIF")):
        code, _, err = run("plot", trained.path, "--kind", kind, "--out", "p.jpg")
        assert code == 2 and error in err
    code, out, _ = run("plot", trained.path, "--kind", "traversals", "--dims", "0", "--out", "p.gif")
    assert code == 0 and out.split() == ["p.gif"] == [p.name for p in inside.iterdir()]


def test_colour_grid_has_texts():
    images = np.zeros((6, 16, 16, 3), np.uint8)
    images[..., 0] = 200
    image = image_grids.image_grid(
        image_grids.caption(images, list("abcdef")), 3, title="t" * 100, heads="xyz", sides="pq"
    )
    assert image.mode == "RGB" and image.width > 3 * 66 + 100  # the title is wider than the grid
    bare = image_grids.image_grid(images, 3)
    assert bare.size == (3 * 66 + 2, 2 * 66 + 2) and bare.getpixel((10, 10)) == (200, 0, 0)
