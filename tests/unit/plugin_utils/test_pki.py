# SPDX-License-Identifier: GPL-3.0-or-later
"""The certificate authority and the computed certificates, judged by openssl where that is possible."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import subprocess
import sys
import threading
import typing as t
from pathlib import Path

import pytest
from ansible.errors import AnsibleFilterError
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from ansible_collections.zonestack.openstack.plugins.filter import pki as pki_filter
from ansible_collections.zonestack.openstack.plugins.plugin_utils import pki

UUID = "8c5c4d38-7c1f-5b6e-9a55-d3c1f0b4f001"
OTHER_UUID = "8c5c4d38-7c1f-5b6e-9a55-d3c1f0b4f002"

# A fixed authority, so that a change of the derivation cannot go unnoticed: it would replace every key of every deployment.
KNOWN = pki.Authority(
    """-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgvDu95zifeiTD6Bp0
M+Gu59rC6B7QkjKGfNoWeKum+U6hRANCAASbtsp82BB2eneIM7MgEOqhA1/0sC+5
mqPP2kZelcABtq187PWmHV+gx4jSvBYN2K8S2bKAkutHzB+ZzoKC+GlQ
-----END PRIVATE KEY-----
""",
    """-----BEGIN CERTIFICATE-----
MIIBoDCCAUagAwIBAgIUHe2qPyCOJhZzBbWUzfgIJPqKeIswCgYIKoZIzj0EAwIw
HDEaMBgGA1UEAwwRdGVzdCB6b25lc3RhY2sgQ0EwHhcNMjYxMTIwMTk0ODE0WhcN
MzYxMTIwMDc0ODE0WjAcMRowGAYDVQQDDBF0ZXN0IHpvbmVzdGFjayBDQTBZMBMG
ByqGSM49AgEGCCqGSM49AwEHA0IABJu2ynzYEHZ6d4gzsyAQ6qEDX/SwL7mao8/a
Rl6VwAG2rXzs9aYdX6DHiNK8Fg3YrxLZsoCS60fMH5nOgoL4aVCjZjBkMBIGA1Ud
EwEB/wQIMAYBAf8CAQAwDgYDVR0PAQH/BAQDAgEGMB0GA1UdDgQWBBR9KwVdN2wd
er+MveMZw523BadAcjAfBgNVHSMEGDAWgBR9KwVdN2wder+MveMZw523BadAcjAK
BggqhkjOPQQDAgNIADBFAiACMagpNWKKJEEIrJcxURzWS/mgHcQlLIE0mDDa2904
bgIhAI/w81FpqGU13freHshNDCHmEMmiVDxczwYcxXe92eHc
-----END CERTIFICATE-----
""",
)
KNOWN_PUBLIC_KEY = "02c0c8bfe16cce46c547657ffb6dceda225808d1fb598d55913bdd4388fa117ffd"


@pytest.fixture(scope="module")
def authority() -> pki.Authority:
    return pki.new_authority("aio")


def issue(authority: pki.Authority, **changes: t.Any) -> dict[str, str]:
    arguments: dict[str, t.Any] = {
        "name": "aio1-keystone-1",
        "uuid": UUID,
        "addresses": ["10.77.2.72", "fd00::5", "cloud.example.net"],
        "dns_names": ["aio1-keystone-1"],
    }
    pki._zone_certificate.cache_clear()
    return pki.zone_certificate(*authority, **{**arguments, **changes})


def openssl(*arguments: str, stdin: str = "") -> str:
    return subprocess.run(["openssl", *arguments], input=stdin, text=True, capture_output=True, check=True).stdout


def test_zone_certificate_is_the_same_bytes_every_time(authority: pki.Authority) -> None:
    first = issue(authority)
    assert issue(authority, addresses=["fd00::0005", "cloud.example.net", "10.77.2.72"]) == first
    assert set(first) == {"key", "certificate", "ca", "chain"}
    assert first["chain"] == first["certificate"] + authority.ca_certificate


def test_zone_certificate_derivation_is_stable_over_releases() -> None:
    key = serialization.load_pem_private_key(issue(KNOWN)["key"].encode(), None)
    point = key.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)
    assert point.hex() == KNOWN_PUBLIC_KEY


def test_zone_certificate_differs_between_zones_and_authorities(authority: pki.Authority) -> None:
    issued = [
        issue(authority),
        issue(authority, name="aio1-keystone-2"),
        issue(authority, uuid=OTHER_UUID),
        issue(pki.new_authority("aio")),
    ]
    assert len({one["key"] for one in issued}) == 4
    assert len({x509.load_pem_x509_certificate(one["certificate"].encode()).serial_number for one in issued}) == 4


def test_zone_certificate_with_another_content_keeps_the_key_and_changes_the_serial_number(
    authority: pki.Authority,
) -> None:
    one, two = issue(authority), issue(authority, addresses=["10.77.2.73"])
    assert one["key"] == two["key"]
    serials = [x509.load_pem_x509_certificate(pair["certificate"].encode()).serial_number for pair in (one, two)]
    assert serials[0] != serials[1]
    assert all(0 < serial < 2**159 for serial in serials)


def test_zone_certificate_is_verified_by_openssl(authority: pki.Authority, tmp_path: Path) -> None:
    pair = issue(authority)
    for part, text in pair.items():
        (tmp_path / part).write_text(text)
    ca, certificate = str(tmp_path / "ca"), str(tmp_path / "certificate")
    for purpose in ("sslserver", "sslclient"):
        verified = openssl(
            "verify", "-x509_strict", "-purpose", purpose, "-verify_ip", "10.77.2.72", "-CAfile", ca, certificate
        )
        assert verified == f"{certificate}: OK\n"
    openssl("verify", "-x509_strict", "-verify_ip", "fd00::5", "-CAfile", ca, certificate)
    openssl("verify", "-x509_strict", "-verify_hostname", "cloud.example.net", "-CAfile", ca, certificate)
    with pytest.raises(subprocess.CalledProcessError):
        openssl("verify", "-verify_ip", "10.77.2.73", "-CAfile", ca, certificate)
    (tmp_path / "other").write_text(pki.new_authority("aio").ca_certificate)
    with pytest.raises(subprocess.CalledProcessError):
        openssl("verify", "-CAfile", str(tmp_path / "other"), certificate)
    assert openssl("pkey", "-in", str(tmp_path / "key"), "-pubout") == openssl(
        "x509", "-in", certificate, "-noout", "-pubkey"
    )


def test_zone_certificate_carries_what_clients_want(authority: pki.Authority) -> None:
    pair = issue(authority)
    leaf, ca = (x509.load_pem_x509_certificate(pair[part].encode()) for part in ("certificate", "ca"))
    extension = leaf.extensions.get_extension_for_class
    assert leaf.not_valid_before_utc == ca.not_valid_before_utc
    assert leaf.not_valid_after_utc == ca.not_valid_after_utc
    assert extension(x509.BasicConstraints).critical and not extension(x509.BasicConstraints).value.ca
    assert extension(x509.KeyUsage).critical and extension(x509.KeyUsage).value.digital_signature
    assert not extension(x509.KeyUsage).value.key_cert_sign
    identifier = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert extension(x509.AuthorityKeyIdentifier).value.key_identifier == identifier.digest
    assert extension(x509.SubjectKeyIdentifier).value.digest != identifier.digest
    names = extension(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.IPAddress) == [
        ipaddress.ip_address("10.77.2.72"),
        ipaddress.ip_address("fd00::5"),
    ]
    assert names.get_values_for_type(x509.DNSName) == ["aio1-keystone-1", "cloud.example.net"]


def test_new_authority_is_a_certificate_authority_for_ten_years() -> None:
    now = datetime.datetime(2026, 10, 1, 12, 0, 0, 5, tzinfo=datetime.UTC)
    ca = x509.load_pem_x509_certificate(pki.new_authority("lab", now).ca_certificate.encode())
    assert ca.subject.rfc4514_string() == "CN=lab zonestack CA"
    assert ca.not_valid_before_utc == now.replace(hour=11, microsecond=0)
    assert (ca.not_valid_after_utc - now).days in (3651, 3652)
    constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical and constraints.value.ca and constraints.value.path_length == 0
    usage = ca.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.key_cert_sign and usage.crl_sign and not usage.digital_signature


def test_zone_certificate_serves_tls_in_both_directions(authority: pki.Authority, tmp_path: Path) -> None:
    """A real handshake: the server demands the client's certificate, the client checks the server's address."""
    pair = issue(authority, addresses=["127.0.0.1"])
    chain, key = tmp_path / "chain", tmp_path / "key"
    chain.write_text(pair["chain"])
    key.write_text(pair["key"])
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=pair["ca"])
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.create_default_context(cadata=pair["ca"])
    for context in (server, client):
        context.load_cert_chain(chain, key)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        heard: list[t.Any] = []

        def answer() -> None:
            connection, _address = listener.accept()
            with server.wrap_socket(connection, server_side=True) as secured:
                heard.append(secured.getpeercert())
                secured.sendall(b"hello")

        thread = threading.Thread(target=answer)
        thread.start()
        raw = socket.create_connection(listener.getsockname(), timeout=60)
        with client.wrap_socket(raw, server_hostname="127.0.0.1") as secured:
            assert secured.recv(5) == b"hello"
        thread.join(60)
    assert heard[0]["subject"] == ((("commonName", "aio1-keystone-1"),),)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"addresses": [], "dns_names": []}, "zone aio1-keystone-1: set at least one address or DNS name"),
        ({"usages": ["email"]}, r"usages \['email'\]: choose from server, client"),
        ({"usages": []}, "choose from server, client"),
    ],
)
def test_zone_certificate_refuses(authority: pki.Authority, change: dict[str, t.Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        issue(authority, **change)


def test_zone_certificate_refuses_an_authority_of_two_halves(authority: pki.Authority) -> None:
    with pytest.raises(ValueError, match="ca_certificate does not belong to ca_key"):
        issue(pki.Authority(authority.ca_key, pki.new_authority("aio").ca_certificate))
    with pytest.raises(ValueError, match=r"secrets\.pki\.ca_key: not an unencrypted private key"):
        issue(pki.Authority("x", authority.ca_certificate))
    with pytest.raises(ValueError, match=r"secrets\.pki\.ca_certificate: not a certificate"):
        issue(pki.Authority(authority.ca_key, "x"))
    rsa = openssl("genrsa", "2048")
    with pytest.raises(ValueError, match=r"secrets\.pki\.ca_key: set an ECDSA key on the curve P-256"):
        issue(pki.Authority(rsa, authority.ca_certificate))


def test_filter_zone_certificate(authority: pki.Authority) -> None:
    zone_certificate = pki_filter.FilterModule().filters()["zone_certificate"]
    pair = zone_certificate(authority._asdict(), "z", uuid=UUID, addresses=["10.0.0.1"], dns=["z"])
    assert pair == pki.zone_certificate(*authority, "z", UUID, ["10.0.0.1"], ["z"])
    with pytest.raises(AnsibleFilterError, match=r"scripts/deployment-secrets\.py ensure"):
        zone_certificate({}, "z", uuid=UUID)
    with pytest.raises(AnsibleFilterError, match="zone_certificate: zone z: set at least one address"):
        zone_certificate(authority._asdict(), "z", uuid=UUID)


def test_filter_zone_certificate_says_when_cryptography_is_missing() -> None:
    code = (
        "import sys\n"
        "sys.modules['cryptography'] = None\n"  # makes its import fail
        f"sys.path.insert(0, {str(Path(__file__).resolve().parents[2])!r})\n"
        "import conftest\n"
        "from ansible_collections.zonestack.openstack.plugins.filter.pki import zone_certificate\n"
        "zone_certificate({}, 'z', uuid='')"
    )
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=False)
    assert "zone_certificate: the controller's Python needs cryptography 45 or newer" in done.stderr
