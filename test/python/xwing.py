"""X-Wing (draft-connolly-cfrg-xwing-kem-10), the receiving side, and its HPKE DeriveKeyPair (draft-ietf-hpke-pq-04)."""

import hashlib
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

KEM_ID = b"\x64\x7a"
ENCAPSULATED_BYTES = 1120
PUBLIC_KEY_BYTES = 1216
# Since draft 05. Earlier ones expand with SHAKE128, or put the label first: other KEMs under the same name.
LABEL = bytes.fromhex("5c2e2f2f5e5c")


@dataclass(frozen=True)
class SecretKey:
    """The 32-byte seed, which is X-Wing's decapsulation key."""

    seed: bytes

    def _parts(self) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
        expanded = hashlib.shake_256(self.seed).digest(96)
        return MLKEM768PrivateKey.from_seed_bytes(expanded[:64]), X25519PrivateKey.from_private_bytes(expanded[64:])

    def public_key(self) -> bytes:
        lattice, curve = self._parts()
        return lattice.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()

    def decapsulate(self, enc: bytes) -> bytes:
        assert len(enc) == ENCAPSULATED_BYTES
        lattice, curve = self._parts()
        point = enc[1088:]
        parts = lattice.decapsulate(enc[:1088]), x25519(curve, point), point, curve.public_key().public_bytes_raw()
        return hashlib.sha3_256(b"".join(parts) + LABEL).digest()


def x25519(secret: X25519PrivateKey, point: bytes) -> bytes:
    """X-Wing takes the zero result of a point of low order as it is; the library refuses it, and nothing else."""
    try:
        return secret.exchange(X25519PublicKey.from_public_bytes(point))
    except ValueError:
        return bytes(32)


def curve_point(secret: bytes) -> bytes:
    """X25519(secret, 9)."""
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def may_be_sealed_to(public_key: bytes) -> bool:
    """Both halves are there: FIPS 203's modulus check, and a point that is not of low order."""
    if len(public_key) != PUBLIC_KEY_BYTES:
        return False
    packed = int.from_bytes(public_key[:1152], "little")
    coefficients = (packed >> 12 * index & 0xFFF for index in range(768))
    multiple_of_8 = X25519PrivateKey.from_private_bytes(bytes([8]) * 32)
    return all(value < 3329 for value in coefficients) and any(x25519(multiple_of_8, public_key[1184:]))


def derive_key_pair(ikm: bytes) -> SecretKey:
    label = b"DeriveKeyPair"
    labelled = ikm + b"HPKE-v1" + b"KEM" + KEM_ID + len(label).to_bytes(2, "big") + label + (32).to_bytes(2, "big")
    return SecretKey(hashlib.shake_256(labelled).digest(32))
