# SPDX-License-Identifier: GPL-3.0-or-later
"""Image files on the control machine, from a real web server on the loopback."""

from __future__ import annotations

import hashlib
import http.server
import pathlib
import threading
import typing as t

import pytest

from ansible_collections.zonestack.openstack.plugins.module_utils.cloud.image_files import (
    Cache,
    ImageRefused,
    fetch_all,
)

CONTENT = b"an image" * 1000
CHECKSUM = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.BaseHTTPRequestHandler):
    asked: t.ClassVar[list[str]] = []

    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "")
        self.asked.append(wanted)
        if self.path != "/image":
            self.send_error(404)
            return
        start = int(wanted[6:-1]) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.end_headers()
        self.wfile.write(CONTENT[start:])

    def log_message(self, *_: t.Any) -> None:
        pass


@pytest.fixture
def url() -> t.Iterator[str]:
    Server.asked.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/image"
        server.shutdown()


def test_an_address_is_fetched_once_for_its_checksum(tmp_path: pathlib.Path, url: str) -> None:
    cache = Cache(str(tmp_path / "cache"))
    wanted = {"one": {"url": url, "checksum": CHECKSUM}, "two": {"built_in": "zonestack-test"}}
    files, fetched = fetch_all(wanted, "/", cache, dry=True)
    assert fetched == ["one"]
    assert not (tmp_path / "cache").exists()
    assert fetch_all(wanted, "/", cache, dry=False) == (files, ["one"])
    assert pathlib.Path(files["one"]).read_bytes() == CONTENT
    assert fetch_all(wanted, "/", cache, dry=False) == (files, [])
    assert Server.asked == [""]


def test_a_download_goes_on_where_it_ended(tmp_path: pathlib.Path, url: str) -> None:
    cache = Cache(str(tmp_path))
    tmp_path.joinpath(CHECKSUM.replace(":", "-") + ".part").write_bytes(CONTENT[:100])
    path, _new = cache.of_url("one", url, CHECKSUM)
    assert pathlib.Path(path).read_bytes() == CONTENT
    assert Server.asked == ["bytes=100-"]


def test_another_content_is_refused_and_not_kept(tmp_path: pathlib.Path, url: str) -> None:
    wrong = "sha256:" + "0" * 64
    with pytest.raises(ImageRefused) as refused:
        Cache(str(tmp_path)).of_url("one", url, wrong)
    for part in ("cloud.images.one.checksum", url, CHECKSUM, wrong, "correct the checksum"):
        assert part in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_an_address_that_does_not_answer_is_named(tmp_path: pathlib.Path, url: str) -> None:
    with pytest.raises(ImageRefused, match=r"cloud\.images\.one\.url: .*none: HTTP Error 404"):
        Cache(str(tmp_path)).of_url("one", url.replace("image", "none"), CHECKSUM)


def test_a_file_is_read_again_only_when_it_changed(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.raw").write_bytes(CONTENT)
    wanted = {"mine": {"file": "mine.raw", "checksum": CHECKSUM}}
    cache = Cache(str(tmp_path / "cache"))
    assert fetch_all(wanted, str(tmp_path), cache, dry=False) == ({"mine": str(tmp_path / "mine.raw")}, [])
    module = "ansible_collections.zonestack.openstack.plugins.module_utils.cloud.image_files.digest"
    with monkeypatch.context() as patch:
        patch.setattr(module, lambda path: pytest.fail(f"{path} was read"))
        fetch_all(wanted, str(tmp_path), cache, dry=False)
    (tmp_path / "mine.raw").write_bytes(CONTENT + b"!")
    with pytest.raises(ImageRefused, match=r"cloud\.images\.mine\.checksum: .*mine\.raw holds sha256:"):
        fetch_all(wanted, str(tmp_path), cache, dry=False)


def test_a_missing_file_is_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ImageRefused, match=r"cloud\.images\.mine\.file: .*gone\.raw: No such file"):
        fetch_all({"mine": {"file": "gone.raw", "checksum": CHECKSUM}}, str(tmp_path), Cache(str(tmp_path)), dry=False)
