"""Certificates of a company's own authorities, which a workflow trusts beside the system's."""

from __future__ import annotations

from policies.errors import CasemateError


def certificates(data: bytes, name: str) -> tuple[str, ...]:
    """Return the certificates of a PEM file, each encoded anew. Raises `CasemateError` (C052).

    Threat: a file that holds more than certificates, a private key above all, would travel with the plan.
    """
    from cryptography import x509  # 30 ms, and few workflows have an authority of their own
    from cryptography.hazmat.primitives.serialization import Encoding

    hint = "give PEM certificates of authorities, and nothing else"
    if b"PRIVATE KEY" in data:
        raise CasemateError("CSM-C052", f'"{name}" holds a private key', hint=hint)
    try:
        found = x509.load_pem_x509_certificates(data)
        for certificate in found:
            constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
            if not constraints.ca:
                raise CasemateError("CSM-C052", f'"{name}" has a certificate that is not an authority\'s', hint=hint)
    except (ValueError, x509.ExtensionNotFound) as error:
        raise CasemateError("CSM-C052", f'"{name}" is no certificate of an authority', hint=hint) from error
    return tuple(certificate.public_bytes(Encoding.PEM).decode() for certificate in found)
