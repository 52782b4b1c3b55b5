# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The deployment's certificate authority, and certificates that are computed instead of stored.

A zone's key and certificate are a pure function of the CA's key and of what the zone is. So there is no certificate store to
keep, to lose or to copy; a rebuilt zone gets the very bytes that it had, and a second run changes nothing. Whoever holds the
CA's key could issue such certificates anyway, so deriving the keys from it gives nothing away that was not given away before.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import ipaddress
import json
import typing as t

MISSING: ImportError | None = None
"""Why nothing here works: this Python has no cryptography. A plugin must be importable all the same; its filter says so."""
try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ImportError as error:
    MISSING = error

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Number of points that P-256's generator generates: private keys are 1 to ORDER - 1 (SP 800-186, 3.2.1.3)."""

CA_YEARS = 10
USAGES = {"server": "SERVER_AUTH", "client": "CLIENT_AUTH"}
"""What a certificate may be used for, and what cryptography calls it."""

# What RFC 5280, 4.2.1.3 calls the key's usages; none unless it is set.
_NO_USAGE = dict.fromkeys(
    (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    ),
    False,
)  # fmt: skip


class Authority(t.NamedTuple):
    """A certificate authority as ``secrets.pki`` holds it; both in PEM."""

    ca_key: str
    ca_certificate: str


def new_authority(deployment: str, now: datetime.datetime | None = None) -> Authority:
    """Make a certificate authority for ``deployment``: P-256, random key, valid for CA_YEARS."""
    # An hour back, for machines whose clocks are slow; whole seconds, because X.509 knows no others.
    start = (now or datetime.datetime.now(datetime.UTC)).replace(microsecond=0) - datetime.timedelta(hours=1)
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"{deployment} zonestack CA")
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=365.25 * CA_YEARS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(**{**_NO_USAGE, "key_cert_sign": True, "crl_sign": True}), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority(_key_pem(key), _pem(certificate))


def zone_certificate(
    ca_key_pem: str,
    ca_cert_pem: str,
    name: str,
    uuid: str,
    addresses: t.Iterable[str] = (),
    dns_names: t.Iterable[str] = (),
    usages: t.Iterable[str] = ("server", "client"),
) -> dict[str, str]:
    """Compute a zone's key and certificate.

    :param ca_key_pem: the CA's private key; the zone's is derived from it, ``uuid`` and ``name`` alone, so that further
        addresses change the certificate and keep the key.
    :param name: the zone's name: the subject's common name, at most 64 characters.
    :param addresses: subject alternative names. What is no IP address is taken for a DNS name, as an endpoint may be either.
    :param dns_names: further alternative names.
    :param usages: of USAGES.
    :returns: PEM texts: ``key`` (PKCS #8), ``certificate``, ``ca``, and ``chain``, which is certificate and CA.
    :raises ValueError: when the authority or a name is unusable; the text says which and why.
    """
    ips, names = set(), {str(name) for name in dns_names}
    for address in map(str, addresses):
        try:
            ips.add(str(ipaddress.ip_address(address)))
        except ValueError:
            names.add(address)
    return dict(
        _zone_certificate(
            str(ca_key_pem),
            str(ca_cert_pem),
            str(name),
            str(uuid),
            tuple(sorted(ips)),
            tuple(sorted(names)),
            tuple(sorted(set(usages))),
        )
    )


@functools.lru_cache(maxsize=64)  # a template engine asks for key, certificate and CA one after the other
def _zone_certificate(
    ca_key_pem: str,
    ca_cert_pem: str,
    name: str,
    uuid: str,
    ips: tuple[str, ...],
    names: tuple[str, ...],
    usages: tuple[str, ...],
) -> dict[str, str]:
    ca_key, ca = _load(ca_key_pem, ca_cert_pem)
    if not ips and not names:
        raise ValueError(
            f"zone {name}: set at least one address or DNS name; without one, no client accepts the certificate"
        )
    unknown = sorted(set(usages) - set(USAGES))
    if unknown or not usages:
        raise ValueError(f"zone {name}: usages {unknown or list(usages)}: choose from {', '.join(USAGES)}")
    key = _derive_key(ca_key, uuid, name)
    content = [ca.serial_number, uuid, name, ips, names, usages]
    alternatives: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address(ip)) for ip in ips]
    alternatives += [x509.DNSName(one) for one in names]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(_serial(content))
        .not_valid_before(ca.not_valid_before_utc)
        .not_valid_after(ca.not_valid_after_utc)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**{**_NO_USAGE, "digital_signature": True}), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([getattr(ExtendedKeyUsageOID, USAGES[usage]) for usage in usages]), critical=False
        )
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_authority_identifier(ca), critical=False)
        # Deterministic signatures (RFC 6979): the same certificate is the same bytes.
        .sign(ca_key, hashes.SHA256(), ecdsa_deterministic=True)
    )
    pem = _pem(certificate)
    return {"key": _key_pem(key), "certificate": pem, "ca": _pem(ca), "chain": pem + _pem(ca)}


def _load(ca_key_pem: str, ca_cert_pem: str) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """Read an authority and check that it is one."""
    try:
        key = serialization.load_pem_private_key(ca_key_pem.encode(), password=None)
    except (ValueError, TypeError) as error:
        raise ValueError(f"secrets.pki.ca_key: not an unencrypted private key in PEM format: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError(
            "secrets.pki.ca_key: set an ECDSA key on the curve P-256 (openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256)"
        )
    try:
        ca = x509.load_pem_x509_certificate(ca_cert_pem.encode())
    except ValueError as error:
        raise ValueError(f"secrets.pki.ca_certificate: not a certificate in PEM format: {error}") from None
    if ca.public_key() != key.public_key():
        raise ValueError("secrets.pki: ca_certificate does not belong to ca_key: restore both from the same backup")
    return key, ca


def _derive_key(ca_key: ec.EllipticCurvePrivateKey, uuid: str, name: str) -> ec.EllipticCurvePrivateKey:
    """Derive a zone's private key: HKDF (RFC 5869), then FIPS 186-5, A.2.1 (64 bits more than the order has, so that the
    remainder shows no bias)."""
    secret = ca_key.private_numbers().private_value.to_bytes(32, "big")
    purpose = json.dumps(["zonestack.openstack zone key 1", uuid, name]).encode()
    derived = HKDF(algorithm=hashes.SHA256(), length=40, salt=None, info=purpose).derive(secret)
    return ec.derive_private_key(int.from_bytes(derived, "big") % (ORDER - 1) + 1, ec.SECP256R1())


def _serial(content: list[t.Any]) -> int:
    """A serial number of 159 bits at most (RFC 5280, 4.1.2.2: 20 octets, positive). Another content has another: clients
    refuse two certificates of one issuer that share a number."""
    return int.from_bytes(hashlib.sha256(json.dumps(content).encode()).digest()[:20], "big") >> 1 or 1


def _authority_identifier(ca: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """Point at the CA by the identifier that it carries; by its key's where it carries none (a CA from elsewhere)."""
    try:
        carried = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        carried = x509.SubjectKeyIdentifier.from_public_key(t.cast("ec.EllipticCurvePublicKey", ca.public_key()))
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(carried)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
