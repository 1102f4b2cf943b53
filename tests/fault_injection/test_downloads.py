"""vaezoo.data.download: servers, networks, disks and processes that fail or lie."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import multiprocessing
import os
import random
import re
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from vaezoo.data import download
from vaezoo.data.download import Remote, fetch
from vaezoo.data.images import cifar, idx, svhn
from vaezoo.data.load import load_data
from vaezoo.errors import InputError, StorageError

CONTENT = random.Random(0).randbytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAME = "MNIST/raw/file.gz"


class Handler(BaseHTTPRequestHandler):
    """Answers as the server's `answer` says, and keeps the headers Range that came."""

    server: Server

    def do_GET(self) -> None:
        self.server.ranges.append(self.headers.get("Range"))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.server.answer(self)

    def log_message(self, *args: object) -> None: ...

    def start(self) -> int:
        """The first byte that was asked for."""
        return int((self.headers.get("Range") or "bytes=0-")[6:-1])

    def head(self, code: int, length: int, **headers: str) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def give(self, content: bytes, most: int | None = None) -> None:
        """Gives the part that was asked for, or the first `most` bytes of it."""
        start = self.start()
        if start:
            self.head(206, len(content) - start, Content_Range=f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.head(200, len(content))
        self.wfile.write(content[start:][:most])


class Server(ThreadingHTTPServer):
    """A server on this machine whose manners a test sets."""

    daemon_threads = True
    request_queue_size = 100

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer: Callable[[Handler], None] = lambda request: request.give(CONTENT)
        self.ranges: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_port}/"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    server = Server()
    monkeypatch.setattr(download, "SAFE", (server.url,))
    monkeypatch.setattr(download, "TIMEOUT", 0.4)
    yield server
    server.shutdown()
    server.server_close()


def remote(server: Server, *names: str) -> Remote:
    return Remote(tuple(server.url + name for name in names or ("file.gz",)), len(CONTENT), SHA256)


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def part(root: Path, content: bytes) -> None:
    """Leaves behind what an earlier download brought."""
    (root / NAME).parent.mkdir(parents=True)
    (root / f"{NAME}.part").write_bytes(content)


def came(root: Path) -> bool:
    """Tells whether the file is there, the right one, and alone."""
    return (root / NAME).read_bytes() == CONTENT and files(root) == [NAME]


# --- what goes well in the end


def test_a_file_comes_and_is_not_asked_for_again(
    server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        fetch(remote(server), tmp_path, NAME)
        assert came(tmp_path) and server.ranges == [None]
    assert capfd.readouterr() == ("", "")


PLACES = [0, 1, len(CONTENT) - 1, *random.Random(1).sample(range(len(CONTENT)), 9)]


@pytest.mark.parametrize("place", PLACES)
def test_a_connection_that_breaks_at_any_byte_is_taken_up_there(server: Server, tmp_path: Path, place: int) -> None:
    def breaking(request: Handler) -> None:
        request.give(CONTENT, place if request.start() == 0 else None)

    server.answer = breaking
    if place == 0:  # nothing came: then it is not tried again
        with pytest.raises(InputError, match="ended 300,000 bytes early"):
            fetch(remote(server), tmp_path, NAME)
        assert files(tmp_path) == [] and server.ranges == [None]
    else:
        fetch(remote(server), tmp_path, NAME)
        assert came(tmp_path) and server.ranges == [None, f"bytes={place}-"]


def test_what_came_stays_for_the_next_call(server: Server, tmp_path: Path) -> None:
    server.answer = lambda request: request.give(CONTENT, 1000)
    with pytest.raises(InputError, match="ended 295,000 bytes early"):
        fetch(remote(server), tmp_path, NAME)
    assert files(tmp_path) == [f"{NAME}.part"]
    server.answer = lambda request: request.give(CONTENT)
    fetch(remote(server), tmp_path, NAME)
    assert came(tmp_path) and server.ranges[-1] == "bytes=5000-"


@pytest.mark.parametrize("place", random.Random(2).sample(range(len(CONTENT)), 8))
def test_a_killed_process_leaves_what_the_next_one_needs(server: Server, tmp_path: Path, place: int) -> None:
    sent = threading.Event()

    def hanging(request: Handler) -> None:
        request.give(CONTENT, place)
        sent.set()
        time.sleep(30)

    server.answer = hanging
    child = multiprocessing.get_context("fork").Process(target=fetch, args=(remote(server), tmp_path, NAME))
    child.start()
    assert sent.wait(20)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert not (tmp_path / NAME).exists()
    server.answer = lambda request: request.give(CONTENT)
    fetch(remote(server), tmp_path, NAME)
    assert came(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"garbage", CONTENT[:-1] + b"?", b"x" * 400_000, CONTENT + b"x", b""],
    ids=["other", "whole but other", "too long", "one byte more", "empty"],
)
def test_another_beginning_is_thrown_away(server: Server, tmp_path: Path, content: bytes) -> None:
    part(tmp_path, content)
    fetch(remote(server), tmp_path, NAME)
    assert came(tmp_path) and server.ranges[-1] is None


def test_a_whole_part_needs_only_its_name(server: Server, tmp_path: Path) -> None:
    part(tmp_path, CONTENT)
    fetch(remote(server), tmp_path, NAME)
    assert came(tmp_path) and server.ranges == []


def cannot_continue(request: Handler) -> None:
    request.head(200, len(CONTENT))
    request.wfile.write(CONTENT)


def has_no_such_part(request: Handler) -> None:
    request.head(416, 0) if request.start() else request.give(CONTENT)


def gives_another_part(request: Handler) -> None:
    if not request.start():
        return request.give(CONTENT)
    request.head(206, 100, Content_Range=f"bytes 0-99/{len(CONTENT)}")
    return request.wfile.write(CONTENT[:100]) and None


@pytest.mark.parametrize("answer", [cannot_continue, has_no_such_part, gives_another_part])
def test_servers_that_cannot_continue(server: Server, tmp_path: Path, answer: Callable[[Handler], None]) -> None:
    part(tmp_path, CONTENT[:777])
    server.answer = answer
    fetch(remote(server), tmp_path, NAME)
    assert came(tmp_path) and server.ranges[0] == "bytes=777-"


@pytest.mark.parametrize("code", [403, 404, 500, 503])
def test_the_next_address_is_tried(server: Server, tmp_path: Path, code: int) -> None:
    server.answer = lambda request: request.head(code, 0) if request.path == "/a" else request.give(CONTENT)
    fetch(remote(server, "a", "b"), tmp_path, NAME)
    assert came(tmp_path)


def test_redirects_are_followed_where_they_are_safe(server: Server, tmp_path: Path) -> None:
    def moved(request: Handler) -> None:
        request.head(302, 0, Location="/b") if request.path == "/a" else request.give(CONTENT)

    server.answer = moved
    fetch(remote(server, "a"), tmp_path, NAME)
    assert came(tmp_path)


def test_a_set_is_read_after_what_is_missing_of_it_came(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = {}
    for prefix, n in (("train", 4), ("t10k", 2)):
        head = bytes([0, 0, 8, 3]) + b"".join(k.to_bytes(4, "big") for k in (n, 5, 5))
        packed[f"{prefix}-images-idx3-ubyte"] = gzip.compress(head + CONTENT[: 25 * n])
        packed[f"{prefix}-labels-idx1-ubyte"] = gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, n]) + bytes(range(n)))
    listed = {name: (len(content), hashlib.sha256(content).hexdigest()) for name, content in packed.items()}
    monkeypatch.setitem(idx.FILES, "mnist", listed)
    monkeypatch.setitem(idx.HOSTS, "mnist", (server.url + "sets",))
    server.answer = lambda request: request.give(packed[request.path.removeprefix("/sets/").removesuffix(".gz")])
    train, test = load_data("mnist", data_dir=tmp_path).train, load_data("mnist", data_dir=tmp_path).test
    assert len(train) == 3 and test is not None and test.gather(slice(None)).x.numpy().tobytes() == CONTENT[:50]
    assert len(server.ranges) == 4 and files(tmp_path) == sorted(f"MNIST/raw/{name}.gz" for name in packed)


# --- what must not go well


def other_bytes(request: Handler) -> None:
    request.give(CONTENT[:-1] + b"?")


def endless(request: Handler) -> None:
    request.head(200, 10**12)
    while True:
        request.wfile.write(b"x" * 65536)


def login_page(request: Handler) -> None:
    request.head(200, 20)
    request.wfile.write(b"<html>log in</html>\n")


def unasked_part(request: Handler) -> None:
    request.head(206, 100, Content_Range="bytes 0-99/100")
    request.wfile.write(b"x" * 100)


def no_http(request: Handler) -> None:
    request.wfile.write(b"\0\1\2 hello\r\n\r\n")


def no_answer(request: Handler) -> None:
    time.sleep(30)


def slow_head(request: Handler) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        request.wfile.write(b"A")
        time.sleep(0.05)


def slow_body(request: Handler) -> None:
    request.head(200, len(CONTENT))
    while True:
        request.wfile.write(b"A")
        time.sleep(0.05)


def endless_redirects(request: Handler) -> None:
    request.head(302, 0, Location=f"{request.path}x")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (other_bytes, "another file: its SHA-256 differs"),
        (endless, "another file: its SHA-256 differs"),
        (login_page, "bytes early"),
        (unasked_part, "not answer with the whole file but 206"),
        (no_http, "the answer is broken"),
        (no_answer, "no answer from|timed out"),
        (slow_head, "no answer from"),
        (slow_body, r"only \d+ bytes came"),
        (endless_redirects, "redirect"),
        *((lambda request, code=code: request.head(code, 0), f"HTTP Error {code}") for code in (403, 404, 500, 503)),
    ],
)
def test_servers_that_give_something_else(
    server: Server, tmp_path: Path, answer: Callable[[Handler], None], reason: str
) -> None:
    server.answer = answer
    with pytest.raises(
        InputError, match=f"{NAME} is not in '{tmp_path}' and cannot be downloaded: .*{reason}"
    ) as error:
        fetch(remote(server), tmp_path, NAME)
    assert "--data-dir" in error.value.hint and server.url in error.value.hint
    assert "\n" not in error.value.message
    assert not (tmp_path / NAME).exists() and sum(p.stat().st_size for p in tmp_path.rglob("*.part")) <= len(CONTENT)


def test_an_address_that_is_not_https_is_not_asked(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    with pytest.raises(InputError, match=f"{server.url}file.gz is not https"):
        fetch(remote(server), tmp_path, NAME)
    assert server.ranges == [] and files(tmp_path) == []


@pytest.mark.parametrize("scheme", ["http", "ftp", "file"])
def test_a_redirect_to_something_else_is_not_followed(server: Server, tmp_path: Path, scheme: str) -> None:
    """Here the server's own address stands for https, and another port of this machine for plain http."""
    other = Server()
    (tmp_path / "bait").write_bytes(CONTENT)
    target = {"http": f"{other.url}file.gz", "ftp": f"ftp{other.url[4:]}", "file": f"file://{tmp_path}/bait"}[scheme]
    server.answer = lambda request: request.head(302, 0, Location=target)
    with pytest.raises(InputError, match=r"is not https|not allowed"):
        fetch(remote(server), tmp_path, NAME)
    assert other.ranges == [] and files(tmp_path) == ["bait"]
    other.shutdown()
    other.server_close()


def test_without_a_network(tmp_path: Path, server: Server) -> None:
    server.shutdown()
    server.server_close()
    with pytest.raises(InputError, match="Connection refused"):
        fetch(remote(server), tmp_path, NAME)
    assert files(tmp_path) == []


# --- disks


def test_a_folder_that_cannot_be_made(server: Server, tmp_path: Path) -> None:
    (tmp_path / "MNIST").write_bytes(b"in the way")
    with pytest.raises(StorageError, match=f"cannot write {tmp_path / NAME}") as error:
        fetch(remote(server), tmp_path, NAME)
    assert "--data-dir" in error.value.hint and server.ranges == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_read_only(server: Server, tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(StorageError, match="Permission denied"):
        fetch(remote(server), tmp_path, NAME)


@pytest.mark.parametrize("room", [0, 1, 4096, 150_000, len(CONTENT) - 1])
def test_a_disk_that_fills(server: Server, tmp_path: Path, room: int) -> None:
    def cramped() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
        try:
            fetch(remote(server), tmp_path, NAME)
        except StorageError as error:
            os._exit(5 if "File too large" in error.message else 1)
        os._exit(0)

    child = multiprocessing.get_context("fork").Process(target=cramped)
    child.start()
    child.join()
    assert child.exitcode == 5
    assert not (tmp_path / NAME).exists()
    fetch(remote(server), tmp_path, NAME)
    assert came(tmp_path)


# --- several processes


def test_of_fifty_processes_one_downloads_and_all_have_the_file(server: Server, tmp_path: Path) -> None:
    def together() -> None:
        fetch(remote(server), tmp_path, NAME)
        os._exit(0 if came(tmp_path) or (tmp_path / NAME).read_bytes() == CONTENT else 1)

    def slowly(request: Handler) -> None:
        request.head(200, len(CONTENT))
        for start in range(0, len(CONTENT), 30_000):
            request.wfile.write(CONTENT[start : start + 30_000])
            time.sleep(0.02)

    server.answer = slowly
    children = [multiprocessing.get_context("fork").Process(target=together) for _ in range(50)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * 50
    assert came(tmp_path) and server.ranges == [None]


def test_where_one_fails_the_next_in_line_tries(server: Server, tmp_path: Path) -> None:
    """The first of them is served badly; the others must not take what it leaves for the file."""
    served = []

    def first_badly(request: Handler) -> None:
        served.append(request)
        time.sleep(0.05)
        request.head(503, 0) if len(served) == 1 else request.give(CONTENT)

    def together() -> None:
        try:
            fetch(remote(server), tmp_path, NAME)
        except InputError:
            os._exit(3)
        os._exit(0)

    server.answer = first_badly
    children = [multiprocessing.get_context("fork").Process(target=together) for _ in range(5)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert sorted(str(child.exitcode) for child in children) == ["0"] * 4 + ["3"]
    assert came(tmp_path)


# --- the table


def test_the_table_names_https_addresses_and_whole_hashes() -> None:
    urls = [url for hosts in idx.HOSTS.values() for url in hosts]
    entries = [entry for listed in idx.FILES.values() for entry in listed.values()]
    for known in (cifar.REMOTE, *svhn.FILES.values()):
        urls += known.urls
        entries.append((known.size, known.sha256))
    assert all(url.startswith(download.SAFE) for url in urls) and download.SAFE == ("https://",)
    assert all(size > 1000 and re.fullmatch(r"[0-9a-f]{64}", sha256) for size, sha256 in entries)
    assert len({sha256 for _, sha256 in entries}) == len(entries) == 15
