"""Whom a cell trusts: only where the firewall inspects, and only what is a certificate of an authority."""

from __future__ import annotations

import base64
import datetime
import io
import tarfile
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, pkcs12
from cryptography.x509.oid import NameOID

from policies.errors import CasemateError
from sandbox.archives import tar_of
from sandbox.cells.authorities import files, only_file, run_authority
from sandbox.topology.agent_env import TRUST_STORE_PASSWORD, trusts
from sandbox.topology.layout import topology
from tests.plans import plan


def certificate(name: str, *, ca: bool = True, length: int | None = 0) -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    builder = builder.serial_number(7).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    constraints = x509.BasicConstraints(ca=ca, path_length=length if ca else None)
    return builder.add_extension(constraints, critical=True).sign(key, hashes.SHA256())


def pem(name: str) -> bytes:
    return certificate(name).public_bytes(Encoding.PEM)


def published(made: x509.Certificate) -> str:
    return base64.b64encode(made.public_bytes(Encoding.DER)).decode()


def test_the_bundle_has_the_systems_the_plans_and_the_runs_authorities() -> None:
    own = run_authority(published(certificate("run")))
    made = files(pem("system").rstrip(b"\n"), [pem("company").decode()], own)
    names = [c.subject.rfc4514_string() for c in x509.load_pem_x509_certificates(made["ca.pem"])]
    assert names == ["CN=system", "CN=company", "CN=run"]
    _, _, java = pkcs12.load_key_and_certificates(made["truststore.p12"], TRUST_STORE_PASSWORD.encode())
    assert sorted(c.subject.rfc4514_string() for c in java) == sorted(names)


@pytest.mark.parametrize(
    "text",
    ["", "!", base64.b64encode(b"no certificate").decode(), published(certificate("leaf", ca=False)),
     published(certificate("wide", length=None))],
)  # fmt: skip
def test_what_is_no_authority_for_hosts_does_not_get_into_a_cell(text: str) -> None:
    with pytest.raises(CasemateError) as refused:
        run_authority(text)
    assert refused.value.code == "CSM-R017"


def test_the_systems_bundle_is_one_plain_file() -> None:
    assert only_file(tar_of({"ca-certificates.crt": b"x"})) == b"x"
    link = io.BytesIO()
    with tarfile.open(fileobj=link, mode="w") as tar:
        info = tarfile.TarInfo("ca-certificates.crt")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)
    for archive in (link.getvalue(), tar_of({"a": b"", "b": b""})):
        with pytest.raises(CasemateError):
            only_file(archive)


@pytest.mark.parametrize(
    ("change", "trust", "told"),
    [({}, [], False), ({"inspect": True}, [], True), ({}, [pem("company").decode()], True)],
)
def test_only_a_cell_that_needs_it_is_told_of_authorities(change: Any, trust: list[str], told: bool) -> None:
    base = plan()
    one, two = base.stages
    rule = msgspec.structs.replace(one.egress[0], **change)
    one = msgspec.structs.replace(one, egress=[rule])
    made = msgspec.structs.replace(base, stages=[one, two], trust=trust)
    assert (trusts(made, one.egress), trusts(made, two.egress)) == (told, False)
    lay = topology(made, "r1", home="/h", host="here")
    for name in ("SSL_CERT_FILE", "GIT_SSL_CAINFO", "npm_config_cafile", "JAVA_TOOL_OPTIONS", "NODE_USE_ENV_PROXY"):
        assert (name in lay.cells["one"].agent.env) is told
        assert name not in lay.cells["two"].agent.env
