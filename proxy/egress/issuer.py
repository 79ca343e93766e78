"""The run's certificate authority: made at the start, in memory only, gone with the process.

Threat: an interception key that somebody else can use. The key is never written, the leaf's key goes to OpenSSL by an
anonymous file in memory, and only this run's cells are told of the certificate.
"""

from __future__ import annotations

import base64
import datetime
import os
import ssl

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFE = datetime.timedelta(days=30)
SKEW = datetime.timedelta(hours=1)
MAX_LEAVES = 256
"""TLS contexts kept; a rule with a pattern admits any number of hosts."""


class Issuer:
    """A certificate authority of one run, and a server context for each host."""

    def __init__(self) -> None:
        self._key, self._leaf_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Casemate inspection, this run only")])
        self._name = name
        usage = x509.BasicConstraints(ca=True, path_length=0)
        self._certificate = (
            _builder(name, name, self._key.public_key())
            .add_extension(usage, critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self._contexts: dict[str, ssl.SSLContext] = {}

    @property
    def certificate(self) -> str:
        """The public part, as PEM."""
        return self._certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")

    @property
    def published(self) -> str:
        """The public part as base64 of DER: one line, as an event carries it."""
        return base64.b64encode(self._certificate.public_bytes(serialization.Encoding.DER)).decode("ascii")

    def context(self, host: str) -> ssl.SSLContext:
        """Return the context of a TLS server that is `host`: TLS 1.2 or newer, HTTP/1.1 only."""
        if (known := self._contexts.get(host)) is not None:
            return known
        if len(self._contexts) >= MAX_LEAVES:
            del self._contexts[next(iter(self._contexts))]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        context.set_alpn_protocols(["http/1.1"])
        _load(context, self._leaf(host))
        self._contexts[host] = context
        return context

    def _leaf(self, host: str) -> bytes:
        """Return certificate and key of a host as PEM."""
        public = self._leaf_key.public_key()
        # an empty subject: a name may be longer than the 64 characters that a common name can have
        certificate = (
            _builder(x509.Name([]), self._name, public)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM) + self._leaf_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + LIFE)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _load(context: ssl.SSLContext, pem: bytes) -> None:
    """Give a certificate and its key to OpenSSL, which only reads files: one in memory, without a name."""
    number = os.memfd_create("leaf", os.MFD_CLOEXEC)
    try:
        with open(number, "wb", closefd=False) as file:
            file.write(pem)
        context.load_cert_chain(f"/proc/self/fd/{number}")
    finally:
        os.close(number)
