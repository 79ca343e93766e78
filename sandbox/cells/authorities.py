"""The authorities that a cell trusts where the firewall inspects: /casemate/ca.pem, and the same for Java.

They are the system's (those of the firewall's image), the plan's, and the run's own, whose key only the firewall has.
What the firewall says of itself is read as a certificate and written anew: nothing else travels into a cell.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import io
import re
import tarfile
import warnings
from collections.abc import Sequence

from policies.errors import CasemateError
from policies.plan import EgressRule, Plan
from sandbox.engine.docker import Engine
from sandbox.topology.agent_env import CA_BUNDLE, TRUST_STORE, TRUST_STORE_PASSWORD

SYSTEM_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
MAX_BUNDLE = 4 << 20
_ONE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def collected(engine: Engine, firewall: str, plan: Plan, published: str | None) -> dict[str, bytes]:
    """Return the files by which the cells of a run trust its firewall. Raises CSM-R017 when they cannot."""
    archive = engine.get(firewall, SYSTEM_BUNDLE, MAX_BUNDLE)
    own = run_authority(published) if published is not None else None
    if own is None and any(rule.inspect for rules in _rules(plan) for rule in rules):
        raise CasemateError("CSM-R017", "the firewall inspects, but published no authority")
    return files(only_file(archive), plan.trust, own)


def _rules(plan: Plan) -> list[list[EgressRule]]:
    return [*(stage.egress for stage in plan.stages), *(tool.egress for tool in plan.tools)]


def only_file(archive: bytes) -> bytes:
    """Return the content of the one file in a tar archive; raise CSM-R017 when there is another number of them."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        files = [member for member in tar.getmembers() if member.isfile()]
        stream = tar.extractfile(files[0]) if len(files) == 1 else None
        if stream is None:
            raise CasemateError("CSM-R017", f"{SYSTEM_BUNDLE} of the firewall's image is not one file")
        return stream.read()


def run_authority(published: str) -> bytes:
    """Return the run's authority as PEM, from what the firewall published (base64 of DER); raise CSM-R017."""
    from cryptography import x509  # 30 ms, and few runs inspect
    from cryptography.hazmat.primitives.serialization import Encoding

    try:
        certificate = x509.load_der_x509_certificate(base64.b64decode(published, validate=True))
        ours = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (ValueError, binascii.Error, x509.ExtensionNotFound) as error:
        raise CasemateError("CSM-R017", "the firewall published no certificate of an authority") from error
    if not ours.ca or ours.path_length != 0:
        raise CasemateError("CSM-R017", "the firewall published no authority for hosts alone")
    return certificate.public_bytes(Encoding.PEM)


def files(system: bytes, anchors: Sequence[str], own: bytes | None) -> dict[str, bytes]:
    """Return what stands in /casemate, by name: all authorities as PEM, and as a trust store of Java."""
    parts = [system, *(anchor.encode() for anchor in anchors), own or b""]
    pem = b"".join(part if part.endswith(b"\n") or not part else part + b"\n" for part in parts)
    return {CA_BUNDLE: pem, TRUST_STORE: _trust_store(pem)}


def _trust_store(pem: bytes) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12

    certificates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # systems ship authorities whose numbers are odd; they are Java's to judge
        for number, text in enumerate(_ONE.findall(pem)):
            with contextlib.suppress(ValueError):  # one that cannot be read vouches for nobody
                certificate = x509.load_pem_x509_certificate(text)
                certificates.append(pkcs12.PKCS12Certificate(certificate, f"casemate-{number}".encode()))
    # Java wants a password. It protects nothing: what is in the store is public.
    return pkcs12.serialize_java_truststore(certificates, BestAvailableEncryption(TRUST_STORE_PASSWORD.encode()))
