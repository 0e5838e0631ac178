"""One archive from a server that breaks off, forgets, changes or lies: it ends up whole and verified, or absent."""

import contextlib
import hashlib
import io
import os
import socket
import ssl
import urllib.error
from dataclasses import replace

import pytest
from served import BODY

from david.data import download as module
from david.data.download import fetch

SHA = hashlib.sha256(BODY).hexdigest()


def test_a_whole_file(server, tmp_path, capsys):
    path = fetch(server.archive(), tmp_path)
    assert path == tmp_path / "a.rar" and path.read_bytes() == BODY
    assert "size and sha256 are the known ones" in capsys.readouterr().out
    assert fetch(server.archive(), tmp_path) == path  # verified again, not fetched again
    assert server.requests == [("/a.rar", None, None)] and os.listdir(tmp_path) == ["a.rar"]


def test_a_connection_that_breaks_off_is_continued(server, tmp_path):
    server.cuts = [3000, 0, 2500]
    assert fetch(server.archive(), tmp_path).read_bytes() == BODY
    assert [wanted for _, *wanted in server.requests] == [
        [None, None], ["bytes=3000-", '"one"'], ["bytes=3000-", '"one"'], ["bytes=5500-", '"one"'],
    ]  # fmt: skip
    assert os.listdir(tmp_path) == ["a.rar"]


class Bar(contextlib.nullcontext):
    """A progress bar during which somebody loses patience."""

    def __init__(self, **_):
        self.enter_result, self.n = self, 0

    def update(self, n):
        self.n += n
        if self.n == 4000:
            raise KeyboardInterrupt


def test_interrupting_leaves_what_the_next_call_continues(server, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(module, "track", Bar)
        with pytest.raises(KeyboardInterrupt):
            fetch(server.archive(), tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["a.rar.part", "a.rar.part.version"]
    assert (tmp_path / "a.rar.part").read_bytes() == BODY[:4000]
    assert fetch(server.archive(), tmp_path).read_bytes() == BODY
    assert server.requests[-1] == ("/a.rar", "bytes=4000-", '"one"')


def test_a_server_that_cannot_continue_starts_over(server, tmp_path):
    server.cuts, server.ranges = [3000], False
    assert fetch(server.archive(), tmp_path).read_bytes() == BODY
    assert len(server.requests) == 2


def test_a_server_that_always_breaks_off_at_one_place_is_given_up(server, tmp_path):
    server.cuts, server.ranges = [3000] * 20, False
    with pytest.raises(OSError, match=r"5 tries failed \(it broke off\); 3,000 bytes are kept: run again to continue"):
        fetch(server.archive(), tmp_path)
    assert len(server.requests) == 6  # the first brought something


@pytest.mark.parametrize(
    ("version", "headers"),
    [
        ('"one"', {"ETag": '"one"', "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}),
        ("Mon, 01 Jan 2024 00:00:00 GMT", {"ETag": 'W/"one"', "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}),
    ],
)
def test_a_file_that_changed_meanwhile_is_fetched_from_its_start(server, tmp_path, monkeypatch, version, headers):
    archive, server.headers = server.archive(), headers
    server.files["/a.rar"] = BODY[::-1]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "track", Bar)
        fetch(archive, tmp_path)
    server.files["/a.rar"] = BODY
    server.headers = {name: value.replace("one", "two").replace("01", "02") for name, value in headers.items()}
    assert fetch(archive, tmp_path).read_bytes() == BODY
    assert server.requests[1:] == [("/a.rar", "bytes=4000-", version)]


def test_a_change_that_the_server_does_not_tell_is_noticed_at_the_end(server, tmp_path):
    server.headers = {}
    (tmp_path / "a.rar.part").write_bytes(b"x" * 3000)
    with pytest.raises(ValueError, match=rf"/a\.rar has sha256 \w+, not {SHA}, and was deleted: run again, or get a"):
        fetch(server.archive(), tmp_path)
    assert os.listdir(tmp_path) == []
    assert fetch(server.archive(), tmp_path).read_bytes() == BODY


@pytest.mark.parametrize("known", [{"size": 5000}, {"size": 50_000}])
def test_a_wrong_size_is_refused_before_anything_is_written(server, tmp_path, known):
    with pytest.raises(ValueError, match=rf"a\.rar has 10,240 bytes, not {known['size']:,}: it was changed or moved"):
        fetch(server.archive(**known), tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_file_that_became_shorter(server, tmp_path):
    server.headers = {}
    (tmp_path / "a.rar.part").write_bytes(b"x" * 20_000)
    with pytest.raises(ValueError, match="10,240 bytes, not 30,000"):
        fetch(server.archive(size=30_000), tmp_path)
    assert [wanted for _, wanted, _ in server.requests] == ["bytes=20000-", None] and os.listdir(tmp_path) == []


def test_a_wrong_checksum_leaves_nothing(server, tmp_path):
    with pytest.raises(ValueError, match=rf"a\.rar has sha256 {SHA}, not 0{{64}}, and was deleted"):
        fetch(server.archive(sha256="0" * 64), tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_file_put_there_by_hand_is_verified(server, tmp_path):
    path = tmp_path / "a.rar"
    path.write_bytes(BODY)
    assert fetch(server.archive(), tmp_path) == path
    path.write_bytes(BODY[:-1])
    with pytest.raises(ValueError, match=r"a\.rar has 10,239 bytes, not 10,240: delete it and run again"):
        fetch(server.archive(), tmp_path)
    path.write_bytes(BODY[:-1] + b"x")
    with pytest.raises(ValueError, match=r"a\.rar has sha256 .* delete it and run again"):
        fetch(server.archive(), tmp_path)
    assert path.exists() and not server.requests


def test_answers_that_a_second_try_may_better_and_those_that_it_will_not(server, tmp_path):
    server.codes = [503, 429]
    assert fetch(server.archive(), tmp_path / ".").exists() and len(server.requests) == 3
    with pytest.raises(
        OSError, match=r"b\.zip: 404 Not Found: run again later, or get b\.zip in another way, put it in"
    ):
        fetch(server.archive("b.zip", b"", size=1), tmp_path)
    assert len(server.requests) == 4


def test_no_connection(server, tmp_path, monkeypatch):
    pauses, archive = [], server.archive()
    monkeypatch.setattr(module, "PAUSE", 2)
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    (tmp_path / "a.rar.part").write_bytes(BODY[:3000])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = replace(archive, url=f"http://127.0.0.1:{free.getsockname()[1]}/a.rar")
    with pytest.raises(OSError, match=r"5 tries failed \(.*refused\); 3,000 bytes are kept"):
        fetch(closed, tmp_path)
    assert pauses == [2, 4, 8, 16]
    assert fetch(archive, tmp_path).read_bytes() == BODY


def test_a_certificate_is_verified_unless_told_otherwise(tmp_path, monkeypatch):
    asked = []

    def urlopen(request, timeout, context):
        asked.append(context.verify_mode)
        if context.verify_mode == ssl.CERT_NONE:
            raise urllib.error.HTTPError(request.full_url, 404, "Not Found", {}, io.BytesIO())
        error = ssl.SSLCertVerificationError("certificate verify failed")
        error.verify_message = "unable to get local issuer certificate"
        raise urllib.error.URLError(error)

    monkeypatch.setattr(module.urllib.request, "urlopen", urlopen)
    with pytest.raises(
        OSError, match=r"UCF101\.rar: .*\(unable to get local issuer.*\): fetch with insecure=True .*or get UCF101\."
    ):
        fetch(module.ARCHIVES["ucf101"][1], tmp_path)
    with pytest.raises(OSError, match="404"):
        fetch(module.ARCHIVES["ucf101"][1], tmp_path, insecure=True)
    assert asked == [ssl.CERT_REQUIRED, ssl.CERT_NONE]
