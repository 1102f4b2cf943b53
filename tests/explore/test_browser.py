"""The page of `vaezoo explore` in Chromium: it computes what the runtime does, offline, and says what is wrong."""

import hashlib
import json
import shutil

import numpy as np
import onnx
import pytest
from explore_pages import png, require_package

from vaezoo import runtime
from vaezoo.core.image_grids import as_bytes
from vaezoo.explore.page import copy_runtime, write_page
from vaezoo.explore.web_runtime import WASM
from vaezoo.runtime.manifest import tokenizer_of

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:the posterior has collapsed")]
KINDS = ("mlp", "latent2", "vae-gan", "conditional", "codes", "colour")
LEVELS = 2  # of 255, by which the browser's arithmetic may differ
MOVE = "const s = document.querySelectorAll('.sliders input')[0]; s.value = arguments[0]; "
MOVE += "s.dispatchEvent(new Event('input'))"
MIDDLE = "[...document.querySelectorAll('button')].find((b) => b.textContent === 'To the middle').click()"
PAINT = "const c = document.querySelectorAll('[role=gridcell]')[24]; const n = document.getElementById('code'); "
PAINT += "n.value = (Number(c.title) + arguments[0]) % 32; n.dispatchEvent(new Event('input')); "
PAINT += "c.dispatchEvent(new PointerEvent('pointerdown', { button: 0, bubbles: true }))"


def run_copied(browser, export, monkeypatch):
    """What the copied Python gives."""
    monkeypatch.chdir(export.parent)
    names = {}
    exec(browser.code("Python"), names)
    return names["x"]


def latents_of(browser):
    """The latents in the Python that is copied."""
    return np.float64(browser.code("Python").split("np.array([")[1].split("]")[0].split(","))


def expected_pixels(browser, export, monkeypatch):
    return as_bytes(run_copied(browser, export, monkeypatch))[0].astype(int)


def close(pixels, expected):
    return np.abs(pixels - expected).max() <= LEVELS


def text(browser):
    return browser.run("return document.body.innerText")


@pytest.mark.parametrize("name", KINDS)
def test_picture_is_that_of_the_runtime(browser, explored, monkeypatch, name):
    export, page = explored(name)
    browser.open(page)
    first = browser.pixels()
    assert close(first, expected_pixels(browser, export, monkeypatch))
    moved = browser.change(PAINT if name == "codes" else MOVE, 3)
    assert close(moved, expected_pixels(browser, export, monkeypatch))
    assert np.abs(moved - first).max() > 0
    assert "ms, WASM with SIMD" in text(browser) and not browser.run("return document.querySelector('[role=alert]')")
    assert browser.errors() == []
    hosts = browser.run("return performance.getEntriesByType('resource').map((e) => new URL(e.name).origin)")
    assert set(hosts) == {browser.run("return location.origin")}


@pytest.mark.parametrize("name", KINDS)
def test_dropped_image_is_reconstructed(browser, explored, name):
    export, page = explored(name)
    browser.open(page)
    model = runtime.load(export)
    channels, height, width = model.shape
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, channels), np.uint8)
    browser.drop(png(pixels[..., 0] if channels == 1 else pixels))
    browser.until("return !document.querySelector('.pair[hidden]') && document.getElementById('reconstruction')")
    x = np.float32(pixels.transpose(2, 0, 1)[None] / 255)
    y = np.array(json.loads((page / "latents.json").read_text())["y"][0]) if model.takes_labels() else None
    np.testing.assert_array_equal(browser.pixels("#input"), np.broadcast_to(pixels, (height, width, 3)))
    assert close(browser.pixels("#reconstruction"), as_bytes(model.reconstruct(x, y))[0])


def test_pages_share_a_copy_of_the_runtime(browser, explored, tmp_path):
    export, page = explored("mlp")
    copy_runtime({file: page / "runtime" / file for file in WASM}, tmp_path / "runtime")
    shared = write_page(export, tmp_path / "mlp", {}, "mlp", runtime_url="../runtime/")
    assert not (shared / "runtime").exists()
    browser.open(page)
    first = browser.pixels()
    browser.open(tmp_path, path="mlp/")
    np.testing.assert_array_equal(browser.pixels(), first)
    assert browser.errors() == []


def test_texts_and_rows_are_those_of_the_runtime(browser, explored, monkeypatch):
    export, page = explored("text")
    browser.open(page)
    browser.move(MIDDLE)
    model = runtime.load(export)
    tokenizer, ids = tokenizer_of(model.data), run_copied(browser, export, monkeypatch)
    expected = tokenizer.to_texts(ids)[0] or "(empty)"
    assert browser.run("return document.getElementById('picture').innerText") == expected
    send = "document.getElementById('own-text').value = arguments[0]; document.querySelector('form').requestSubmit()"
    browser.move(send, "ada")
    shown = browser.run("return document.getElementById('input').innerText")
    z = model.encode(tokenizer.to_ids(["ada"], model.data["shape"][0]))[model.manifest["mode"]]
    np.testing.assert_allclose(latents_of(browser), z[0], atol=1e-5)
    assert shown == "ada"
    browser.run(send, "ada1")
    assert "the symbol '1' has no id" in browser.until("return document.getElementById('input-note').textContent")
    export, page = explored("table")
    browser.open(page)
    row, model = run_copied(browser, export, monkeypatch), runtime.load(export)
    cells = browser.run("return [...document.querySelectorAll('#picture td')].map((cell) => cell.textContent)")
    expected = [values[0] for values in model.to_table(row).values()]
    assert len(cells) == len(expected) == 7
    for cell, value in zip(cells, expected, strict=True):
        if isinstance(value, str):
            assert cell == value
        else:
            assert float(cell.replace(",", "")) == pytest.approx(value, abs=0.006)


def test_labels_change_the_picture(browser, explored, monkeypatch):
    export, page = explored("conditional")
    browser.open(page)
    first = browser.pixels()
    label = (json.loads((page / "latents.json").read_text())["y"][0][0] + 1) % 10  # the first example has another one
    labelled = browser.change("document.querySelectorAll('.labels input')[arguments[0]].click()", label)
    assert np.abs(labelled - first).max() > LEVELS
    assert f"np.array([{label}])" in browser.code("Python")
    assert close(labelled, expected_pixels(browser, export, monkeypatch))


def test_javascript_makes_the_picture(browser, explored):
    _, page = explored("conditional")
    browser.open(page)
    browser.change(MOVE, 1.5)
    first, *lines = browser.code("JavaScript").splitlines()
    assert first.startswith("import * as ort")
    program = "const done = arguments[0]; (async () => { const ort = await import(new URL('runtime/ort.wasm.min.mjs', "
    program += "location)); ort.env.wasm.wasmPaths = new URL('runtime/', location).href; " + "\n".join(lines)
    values = browser.driver.execute_async_script(program + "\ndone([...x.data]) })()")
    assert close(browser.pixels()[..., 0], np.round(255 * np.array(values).reshape(28, 28)))


def test_map_keys_and_interpolation(browser, explored):
    _, page = explored("latent2")
    browser.open(page)
    key = "document.querySelector('.map').dispatchEvent(new KeyboardEvent('keydown', { key: arguments[0] }))"
    first = browser.change(MIDDLE)
    assert np.abs(browser.change(key, "ArrowRight") - first).max() > 0
    assert "z0 0.30, z1 0.00" in browser.run("return document.querySelector('.map').ariaLabel")
    facts = json.loads((page / "latents.json").read_text())
    ends = "const r = document.querySelector('[aria-label=\"from A to B\"]'); r.value = arguments[0]; "
    ends += "r.dispatchEvent(new Event('input'))"
    browser.change(ends, 0.5)
    middle = np.mean(facts["z"][:2], axis=0)
    np.testing.assert_allclose(latents_of(browser), middle, atol=1e-6)
    browser.run("[...document.querySelectorAll('button')].find((b) => b.textContent === 'Play').click()")
    browser.until(f"{ends.split(';')[0]}; return Number(r.value) > 0.55")


@pytest.mark.parametrize(
    ("name", "scheme"),
    [("latent2", "light"), ("conditional", "dark"), ("codes", "dark"), ("text", "light"), ("table", "dark")],
)
def test_accessible_in_both_schemes(browser, explored, name, scheme):
    """axe-core finds no serious violation, at the width of a phone, with everything unfolded."""
    source = (require_package("axe-core") / "axe.min.js").read_text("utf-8")
    _, page = explored(name)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.open(page, width=390)
    if browser.run("return document.getElementById('drop')"):
        browser.drop(b"no image")
    browser.run("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    browser.code("Python")
    assert browser.run("return document.documentElement.scrollWidth") <= 390
    browser.run(source)
    run = "axe.run().then(({ violations, passes }) => arguments[0]([violations, passes.length]))"
    found, passes = browser.driver.execute_async_script(run)
    assert passes > 20  # rules that apply to the page
    serious = [v for v in found if v["impact"] in ("serious", "critical")]
    assert [(v["id"], v["nodes"][0]["html"]) for v in serious] == []


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["latent2", "codes"])
def test_panels_fit_the_window(browser, explored, name, width):
    """Two columns on a screen, one on a phone, and nothing to scroll to the side."""
    _, page = explored(name)
    browser.open(page, width=width)
    boxes = "return [...document.querySelectorAll(arguments[0])].map((node) => node.getBoundingClientRect().toJSON())"
    first, second = browser.run(boxes, ".column")
    assert first["right"] <= second["left"] if width > 1000 else first["bottom"] <= second["top"]
    panels = browser.run(boxes, ".panel, .panel canvas, .panel button")
    assert len(panels) > 10 and all(box["left"] >= 0 and box["right"] <= width for box in panels)
    assert browser.run("return document.documentElement.scrollWidth") <= width


def test_numbers_of_a_locale_and_keys(browser, explored):
    _, page = explored("mlp")
    browser.open(page, locale="de-DE")
    key = "document.querySelector('.sliders input').dispatchEvent(new KeyboardEvent('keydown', { key: 'PageUp' }))"
    browser.change(MIDDLE)
    browser.change(key)
    slider = "document.querySelector('.sliders input')"
    assert browser.run(f"return {slider}.getAttribute('aria-valuetext')").startswith("1,00, ")
    assert float(browser.run(f"return {slider}.value")) == pytest.approx(1)
    assert sorted(latents_of(browser))[-2:] == [0, pytest.approx(1)]


def dropped(browser, data):
    browser.drop(data)
    return browser.until("return document.getElementById('input-note').textContent")


def test_files_that_do_not_fit_are_told(browser, explored):
    _, page = explored("mlp")
    browser.open(page)
    assert dropped(browser, b"hello").endswith("not an image that the browser reads: drop a PNG, JPEG or WebP file")
    browser.run("document.getElementById('input-note').textContent = ''")
    assert dropped(browser, 21 * 2**20).startswith("the file is larger than 20 MB: ")
    browser.run("document.getElementById('input-note').textContent = ''")
    colours = png(np.random.default_rng(0).integers(0, 256, (10, 20, 3), np.uint8))
    note = dropped(browser, colours)
    assert "resized from 20×10 to 28×28" in note and "its colours became grey" in note


def edited(page, tmp_path, edit):
    """Returns a copy of a page whose decoder is another file, with the hash of it in the manifest."""
    copy = shutil.copytree(page, tmp_path / "edited")
    decoder = copy / "decoder.onnx"
    decoder.write_bytes(edit(decoder.read_bytes()))
    manifest = json.loads((copy / "manifest.json").read_text())
    data = decoder.read_bytes()
    manifest["files"]["decoder.onnx"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return copy


def alert(browser, page, **options):
    browser.open(page, **options)
    return browser.run("return document.querySelector('[role=alert]').innerText")


@pytest.mark.parametrize("before", ["", "Object.defineProperty(crypto, 'subtle', { value: undefined })"])
def test_damage_is_told_also_without_subtle_crypto(browser, explored, tmp_path, before):
    _, page = explored("mlp")
    browser.open(page, before=before)
    assert not browser.run("return document.querySelector('[role=alert]')")
    copy = shutil.copytree(page, tmp_path / "damaged")
    data = bytearray((copy / "decoder.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (copy / "decoder.onnx").write_bytes(data)
    assert "decoder.onnx is damaged" in alert(browser, copy, before=before)
    (copy / "decoder.onnx").unlink()
    assert "decoder.onnx is missing" in alert(browser, copy)
    (copy / "manifest.json").write_text("[1")
    assert "manifest.json is damaged" in alert(browser, copy)


def with_operator(data):
    """Returns a graph whose first node has an operator that nobody knows."""
    model = onnx.load_from_string(data)
    model.graph.node[0].op_type = "Wibble"
    return model.SerializeToString()


def test_graphs_that_a_browser_cannot_run_are_told(browser, explored, tmp_path):
    _, page = explored("mlp")
    message = alert(browser, edited(page, tmp_path, with_operator))
    assert "Wibble, which a browser cannot run" in message and "vaezoo sample" in message


def test_samples_and_heat(browser, explored):
    _, page = explored("mlp")
    browser.open(page)
    first = browser.pixels()
    sample = "document.querySelector('[aria-label=\"show sample 3\"]').click()"
    assert np.abs(browser.change(sample) - first).max() > LEVELS
    browser.run("const d = document.querySelector('details.panel'); d.open = true")
    browser.until("return document.querySelector('.heat').ariaLabel.startsWith('pixels that move with z')")
    assert browser.pixels(".heat").std() > 10
