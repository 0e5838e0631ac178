"""A server of archives of the tests' own, which breaks off, forgets, changes or lies as it is told."""

import hashlib
import http.server
import io
import threading
import zipfile
from pathlib import Path

import pytest

from david.data import download as module
from david.data.download import Archive

BODY = bytes(range(256)) * 40


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`. cuts: after how many bytes each of the next answers breaks off. codes: of the next answers.

    ranges: whether it can start in the middle. headers: the ETag or Last-Modified that it states.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.cuts, self.codes, self.requests = {}, [], [], []
        self.ranges, self.headers = True, {"ETag": '"one"'}

    def archive(self, name="a.rar", body=BODY, **known) -> Archive:
        """A file to serve, and what is known of it."""
        self.files[f"/{name}"] = body
        known = {"size": len(body), "sha256": hashlib.sha256(body).hexdigest(), "folder": name[:-4]} | known
        return Archive(f"http://127.0.0.1:{self.server_port}/{name}", **known)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, body, start = self.server, self.server.files.get(self.path), 0
        server.requests.append((self.path, self.headers.get("Range"), self.headers.get("If-Range")))
        code = server.codes.pop(0) if server.codes else 200 if body else 404
        same = self.headers.get("If-Range") in (None, *server.headers.values())
        if code == 200 and server.ranges and same and self.headers.get("Range"):
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            code = 206 if start < len(body) else 416
        self.send_response(code)
        if code in (200, 206):
            for name, value in server.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body) - start))
            if code == 206:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.end_headers()
        if code in (200, 206):
            self.wfile.write(body[start:][: server.cuts.pop(0) if server.cuts else None])

    def log_message(self, *args):
        pass


def zipped(files: dict[str, bytes]) -> bytes:
    """A zip archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tree(folder: Path, prefix: str = "", pattern: str = "*") -> dict[str, bytes]:
    """The files in a folder by name."""
    found = sorted(path for path in folder.rglob(pattern) if path.is_file())
    return {f"{prefix}{path.relative_to(folder)}": path.read_bytes() for path in found}


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0)
    monkeypatch.setattr(module, "CHUNK", 1000)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()
