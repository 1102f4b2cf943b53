"""Exports a pretrained decoder to ONNX, and serves its images over HTTP without torch.

    python examples/serve_decoder.py export     # once, where torch is installed
    python examples/serve_decoder.py serve      # needs numpy, onnxruntime and pillow only

Then open http://127.0.0.1:8000/?n=64&seed=1 in a browser.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import numpy as np
from PIL import Image

import vaezoo  # imports torch only where it is needed

MAX_IMAGES = 256


def export(folder: str) -> None:
    """Exports a pretrained model. Nothing is written unless the graphs equal the model."""
    result = vaezoo.export_onnx(vaezoo.load("conv-vae", pretrained="mnist"), folder)
    print(f"written {result.path}")


def sample_png(model: vaezoo.runtime.OnnxVAE, n: int, seed: int) -> bytes:
    """Returns n sampled images in a row as a PNG file."""
    images = model.sample(n, seed=seed)  # (n, 1, 28, 28), float32 in [0, 1]
    row = np.concatenate(images[:, 0], axis=1)
    file = io.BytesIO()
    Image.fromarray((255 * row).round().astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def make_server(folder: str, port: int) -> ThreadingHTTPServer:
    """Returns a server that answers `/?n=8&seed=1` with a PNG file."""
    model = vaezoo.runtime.load(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            try:
                n, seed = (int(query.get(name, ["1"])[0]) for name in ("n", "seed"))
                if not (1 <= n <= MAX_IMAGES and seed >= 0):
                    raise ValueError
            except ValueError:
                self.send_error(400, f"n must be 1 to {MAX_IMAGES}, and seed at least 0")
                return
            data = sample_png(model, n, seed)
            self.send_response(200)
            self.send_header("Content-Type", "image/png")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Exports a decoder, or serves its images.")
    parser.add_argument("action", choices=["export", "serve"])
    parser.add_argument("--folder", default="exports/conv-vae-mnist")
    parser.add_argument("--port", type=int, default=8000)
    args = parser.parse_args(arguments)
    if args.action == "export":
        export(args.folder)
        return
    with make_server(args.folder, args.port) as server:
        print(f"http://127.0.0.1:{server.server_port}/?n=8&seed=1")
        server.serve_forever()


if __name__ == "__main__":
    main()
