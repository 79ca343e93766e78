"""Ed25519: the one file here that knows the cryptography library. It is loaded when there is an exception to verify."""

from __future__ import annotations


class BadKeyError(ValueError):
    """A file is not an Ed25519 public key."""


def public_key(pem: bytes) -> bytes:
    """Return the 32 bytes of an Ed25519 public key in PEM."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadKeyError("its key is not a public key in PEM") from error
    if not isinstance(key, Ed25519PublicKey):
        raise BadKeyError("its key is not of Ed25519")
    return key.public_bytes_raw()


def verifies(key: bytes, signature: bytes, message: bytes) -> bool:
    """Tell whether `signature` is the key's over `message`."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except InvalidSignature:
        return False
    return True
