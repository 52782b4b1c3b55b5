# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives over real HTTPS on loopback: parts, broken connections, wrong content, origins that are away."""

from __future__ import annotations

import hashlib
import http.server
import json
import pathlib
import ssl
import threading
import typing as t

import pytest

from ansible_collections.zonestack.openstack.plugins.module_utils.image.archive import Archives
from ansible_collections.zonestack.openstack.plugins.module_utils.image.recipe import ImageError
from ansible_collections.zonestack.openstack.plugins.plugin_utils import pki

IMAGE = "keystone-0123456789ab"
CONTENT = bytes(range(256)) * 9000


class Origin:
    """A folder over HTTPS with ranges, as nginx serves it. ``cut`` ends each answer after so many bytes."""

    def __init__(self, folder: pathlib.Path, authority: pki.Authority, ranges: bool = True) -> None:
        self.folder, self.cut, self.asked = folder, 0, []
        folder.mkdir()
        issued = pki.zone_certificate(*authority, "repo", "00000000-0000-5000-8000-000000000000", ["127.0.0.1"])
        pem = folder.parent / f"{folder.name}.pem"
        pem.write_text(issued["chain"] + issued["key"])
        origin = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                begin = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
                origin.asked.append((self.path.rpartition("/")[2], begin))
                path = folder / self.path.rpartition("/")[2]
                if not path.exists():
                    self.send_error(404)
                    return
                data = path.read_bytes()
                begin = begin if ranges else 0
                self.send_response(206 if begin else 200)
                self.send_header("Content-Length", str(len(data) - begin))
                self.end_headers()
                self.wfile.write(
                    data[begin : begin + origin.cut] if origin.cut and path.suffix == ".archive" else data[begin:]
                )
                self.close_connection = True

            def log_message(self, *arguments: t.Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"https://127.0.0.1:{self.server.server_port}/images"

    def put(self, content: bytes = CONTENT, said: bytes | None = None) -> None:
        (self.folder / f"{IMAGE}.archive").write_bytes(content)
        note = {"sha256": hashlib.sha256(content if said is None else said).hexdigest(), "size": len(content)}
        (self.folder / f"{IMAGE}.json").write_text(json.dumps(note))

    def begins(self) -> list[int]:
        return [begin for name, begin in self.asked if name.endswith(".archive")]


@pytest.fixture(scope="module")
def authority() -> pki.Authority:
    return pki.new_authority("test")


@pytest.fixture
def two(tmp_path: pathlib.Path, authority: pki.Authority) -> t.Iterator[tuple[Origin, Origin]]:
    made = Origin(tmp_path / "one", authority), Origin(tmp_path / "two", authority)
    yield made
    for origin in made:
        origin.server.shutdown()
        origin.server.server_close()


@pytest.fixture
def here(tmp_path: pathlib.Path, two: tuple[Origin, Origin], authority: pki.Authority) -> Archives:
    return here_again(tmp_path, two, authority)


def here_again(tmp_path: pathlib.Path, origins: t.Iterable[Origin], authority: pki.Authority) -> Archives:
    archives = Archives(
        str(tmp_path / "volumes/zone/images"), [IMAGE], [origin.url for origin in origins], authority.ca_certificate
    )
    archives.prepare()
    return archives


def files(archives: Archives) -> list[str]:
    return sorted(path.name for path in archives.folder.iterdir())


def test_it_comes_whole_with_its_note(here: Archives, two: tuple[Origin, Origin]) -> None:
    two[0].put()
    assert here.lacking() == [IMAGE]
    here.fetch(IMAGE)
    assert here.file(IMAGE).read_bytes() == CONTENT
    assert (here.lacking(), files(here)) == ([], [f"{IMAGE}.archive", f"{IMAGE}.json"])
    assert two[1].asked == []
    assert oct(here.file(IMAGE).stat().st_mode)[-3:] == "644", "nginx in the zone is another user"


def test_a_connection_that_breaks_goes_on_where_it_ended(here: Archives, two: tuple[Origin, Origin]) -> None:
    two[0].put()
    two[0].cut = 1_000_000
    here.fetch(IMAGE)
    assert here.file(IMAGE).read_bytes() == CONTENT
    assert two[0].begins() == [0, 1_000_000, 2_000_000]


def test_a_killed_download_goes_on_from_another_origin(
    here: Archives, two: tuple[Origin, Origin], tmp_path: pathlib.Path, authority: pki.Authority
) -> None:
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    (here.folder / f".{sha256}.part").write_bytes(CONTENT[:777])
    two[1].put()
    here.fetch(IMAGE)
    assert two[1].begins() == [777]
    assert here.file(IMAGE).read_bytes() == CONTENT


def test_an_origin_without_ranges_begins_anew(tmp_path: pathlib.Path, authority: pki.Authority) -> None:
    origin = Origin(tmp_path / "plain", authority, ranges=False)
    archives = here_again(tmp_path, [origin], authority)
    (archives.folder / f".{hashlib.sha256(CONTENT).hexdigest()}.part").write_bytes(b"x" * 10)
    origin.put()
    archives.fetch(IMAGE)
    assert archives.file(IMAGE).read_bytes() == CONTENT


def test_content_that_is_not_what_was_said_is_not_used(here: Archives, two: tuple[Origin, Origin]) -> None:
    two[0].put(CONTENT, said=b"something else")
    two[1].put()
    here.fetch(IMAGE)
    assert here.file(IMAGE).read_bytes() == CONTENT
    two[1].put(CONTENT, said=b"something else")
    here.remove(IMAGE)
    with pytest.raises(ImageError, match=r"holds sha256 .*, and its note says .*; .*holds sha256"):
        here.fetch(IMAGE)
    assert files(here) == []


def test_an_origin_that_is_away_is_asked_once(here: Archives, two: tuple[Origin, Origin]) -> None:
    two[0].server.shutdown()
    two[0].server.server_close()
    two[1].put()
    here.fetch(IMAGE)
    assert list(here.silent) == [two[0].url]
    here.remove(IMAGE)
    (two[1].folder / f"{IMAGE}.json").unlink()
    with pytest.raises(ImageError, match="Connection refused; .* 404 Not Found"):
        here.fetch(IMAGE)


def test_an_origin_of_another_authority_is_not_believed(tmp_path: pathlib.Path, two: tuple[Origin, Origin]) -> None:
    two[0].put()
    stranger = here_again(tmp_path, two[:1], pki.new_authority("other"))
    with pytest.raises(ImageError, match="CERTIFICATE_VERIFY_FAILED"):
        stranger.fetch(IMAGE)
    assert files(stranger) == []


def test_no_proxy_is_asked(here: Archives, two: tuple[Origin, Origin], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    two[0].put()
    here.fetch(IMAGE)


class Memory:
    """What of an image store is used here."""

    def __init__(self) -> None:
        self.images = {IMAGE: CONTENT}

    def pack(self, image: str, target: pathlib.Path) -> None:
        target.write_bytes(self.images[image])

    def unpack(self, image: str, source: pathlib.Path) -> None:
        self.images[image] = source.read_bytes()


def test_what_one_packs_another_unpacks(tmp_path: pathlib.Path) -> None:
    here = Archives(str(tmp_path / "a"), [IMAGE])
    here.prepare()
    assert not here.offers(IMAGE)
    here.pack(t.cast(t.Any, Memory()), IMAGE)
    there = Memory()
    there.images = {}
    assert here.offers(IMAGE)
    here.unpack(t.cast(t.Any, there), IMAGE)
    assert there.images == {IMAGE: CONTENT}
    assert here.lacking() == []


def test_a_file_that_was_changed_is_not_unpacked(tmp_path: pathlib.Path) -> None:
    here = Archives(str(tmp_path / "a"))
    here.prepare()
    here.pack(t.cast(t.Any, Memory()), IMAGE)
    with here.file(IMAGE).open("r+b") as file:
        file.write(b"changed")
    with pytest.raises(ImageError, match="does not match the digest in its note"):
        here.unpack(t.cast(t.Any, Memory()), IMAGE)


def test_surplus_is_what_no_image_has_and_what_was_left(tmp_path: pathlib.Path) -> None:
    here = Archives(str(tmp_path))
    for name in ("old-0123456789ab.archive", "old-0123456789ab.json", f"{IMAGE}.archive", ".x.part"):
        (tmp_path / name).write_text("")
    assert here.surplus([IMAGE]) == [".x.part", "old-0123456789ab"]
    here.drop(here.surplus([IMAGE]))
    assert files(here) == [f"{IMAGE}.archive"]
    assert here.note(IMAGE) is None, "an archive without its note is none"
