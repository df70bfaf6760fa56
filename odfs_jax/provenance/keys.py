"""The key that results are signed with: the user's own, or one generated for this installation.

A generated key stays in the user's configuration folder, readable by nobody else. Its certificate
says that one installation of odfs-jax made a file, not which person: nobody vouches for it.
"""

import datetime
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from odfs_jax.config import ProvenanceConfig
from odfs_jax.data import foreign
from odfs_jax.errors import UserError

ORGANIZATION = "odfs-jax installation (self-made key)"
YEARS = 20
KEY, CHAIN = "key.pem", "chain.pem"
MAX_BYTES = 1 << 20  # of either
ALGORITHMS = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}  # by curve
USES = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment")
USES += ("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")


@dataclass(frozen=True)
class SigningKey:
    """A private key (PEM) and its certificates; `chain` has the signer's first (PEM)."""

    pem: bytes
    chain: bytes
    algorithm: str  # C2PA's name


def key_folder() -> Path:
    """Where the key of this installation is: $XDG_CONFIG_HOME/odfs_jax/provenance."""
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(home).expanduser() / "odfs_jax" / "provenance"


def signing_key(config: ProvenanceConfig) -> SigningKey:
    """The key that `config` names, or this installation's, made at first use. Raises UserError."""
    if (config.key is None) != (config.cert is None):
        missing = "provenance.cert" if config.cert is None else "provenance.key"
        raise UserError(f"{missing}: missing; a key of your own needs both key and cert")
    if config.key is not None:
        return _read(Path(config.key), Path(config.cert))
    folder = key_folder()
    try:
        if not folder.is_dir():
            _generate(folder)
    except OSError as error:
        raise UserError(
            f"{folder}: no signing key can be made here ({error.strerror}); set XDG_CONFIG_HOME, "
            "or provenance.key and provenance.cert"
        ) from error
    return _read(folder / KEY, folder / CHAIN)


def own_certificates() -> bytes | None:
    """This installation's certificates (PEM), by which its signatures are recognized, or None."""
    path = key_folder() / CHAIN
    return foreign.read_bytes(path, MAX_BYTES) if path.is_file() else None


def _read(key_path: Path, cert_path: Path) -> SigningKey:
    key_pem = foreign.read_secret(key_path, MAX_BYTES)
    chain = foreign.read_bytes(cert_path, MAX_BYTES)
    try:
        key = serialization.load_pem_private_key(key_pem, None)
        leaf = x509.load_pem_x509_certificates(chain)[0]
    except (ValueError, TypeError) as error:  # TypeError: it is encrypted
        raise UserError(
            f"{key_path}, {cert_path}: expected an unencrypted private key and certificates as PEM "
            f"({error})"
        ) from error
    if key.public_key() != leaf.public_key():
        raise UserError(f"{cert_path}: its first certificate is not that of {key_path}")
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in ALGORITHMS:
        raise UserError(f"{key_path}: expected a key on one of {', '.join(ALGORITHMS)}")
    return SigningKey(_pem(key), chain, ALGORITHMS[key.curve.name])


def _generate(folder: Path) -> None:
    """Generates a key and a certificate signed by a root, as C2PA requires."""
    # The key of the root is not stored: it signs nothing else.
    root_key, leaf_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root = _certificate("root", root_key, "root", root_key, is_root=True)
    leaf = _certificate("signer", leaf_key, "root", root_key, is_root=False)
    chain = b"".join(c.public_bytes(serialization.Encoding.PEM) for c in (leaf, root))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".provenance-", dir=folder.parent) as rooms:
        new = Path(rooms) / "new"
        new.mkdir(mode=0o700)
        descriptor = os.open(new / KEY, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(_pem(leaf_key))
        (new / CHAIN).write_bytes(chain)
        try:
            os.rename(new, folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster, and its key is used
                raise


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    is_root: bool,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    wanted = {"key_cert_sign", "crl_sign"} if is_root else {"digital_signature"}
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # clocks differ
        .not_valid_after(now + datetime.timedelta(days=365 * YEARS))
        .add_extension(x509.BasicConstraints(ca=is_root, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**{use: use in wanted for use in USES}), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False
        )
    )
    if not is_root:
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])  # C2PA requires one
        builder = builder.add_extension(usage, critical=True)
    return builder.sign(issuer_key, hashes.SHA256())


def _name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION),
            x509.NameAttribute(NameOID.COMMON_NAME, f"odfs-jax {common}"),
        ]
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
