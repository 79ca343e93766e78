"""Ed25519: the one file here that knows the cryptography library. It is loaded when people sign, or have signed."""

from __future__ import annotations

from collections.abc import Callable


class BadKeyError(ValueError):
    """A file is not an Ed25519 key."""


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


def signer(pem: bytes, passphrase: Callable[[], str]) -> tuple[bytes, Callable[[bytes], bytes]]:
    """Return the public half of a private key in PEM, and what signs with it. `passphrase` is asked if need be."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        try:
            key = load_pem_private_key(pem, None)
        except TypeError:  # it is encrypted
            key = load_pem_private_key(pem, passphrase().encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadKeyError("it is not a private key in PEM, or not with this passphrase") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise BadKeyError("it is not a key of Ed25519")
    return key.public_key().public_bytes_raw(), key.sign


def verifies(key: bytes, signature: bytes, message: bytes) -> bool:
    """Tell whether `signature` is the key's over `message`."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except InvalidSignature:
        return False
    return True
