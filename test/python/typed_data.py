"""EIP-712: hashes of typed data, and the signer of a digest."""

from typing import Any

from Crypto.Hash import keccak
from ecdsa.curves import SECP256k1
from ecdsa.ellipticcurve import PointJacobi
from ecdsa.numbertheory import SquareRootError, square_root_mod_prime

import canonical

Fields = list[tuple[str, str]]
Types = dict[str, Fields]

DOMAIN = "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"


def keccak256(data: bytes) -> bytes:
    return keccak.new(digest_bits=256, data=data).digest()


def parse_types(text: str) -> Types:
    """`A(T1 a,T2 b)B(...)`; the first is the primary type."""
    types: Types = {}
    for part in text.removesuffix(")").split(")"):
        name, fields = part.split("(")
        types[name] = [(kind, field) for kind, field in (text.split(" ") for text in fields.split(","))]
    return types


def encode_type(primary: str, types: Types) -> str:
    """The primary type first, then what it refers to in alphabetical order."""
    others = sorted(referred(primary, types) - {primary})
    return "".join(
        name + "(" + ",".join(f"{kind} {field}" for kind, field in types[name]) + ")" for name in [primary, *others]
    )


def referred(name: str, types: Types) -> set[str]:
    found = {name}
    for kind, _ in types[name]:
        if kind in types:
            found |= referred(kind, types)
    return found


def type_hash(primary: str, types: Types) -> bytes:
    return keccak256(encode_type(primary, types).encode())


def struct_hash(primary: str, types: Types, message: dict[str, Any]) -> bytes:
    assert set(message) == {field for _, field in types[primary]}
    words = [encode_value(kind, types, message[field]) for kind, field in types[primary]]
    return keccak256(type_hash(primary, types) + b"".join(words))


def encode_value(kind: str, types: Types, value: Any) -> bytes:
    if kind in types:
        return struct_hash(kind, types, value)
    if kind == "string":
        return keccak256(value.encode())
    if kind == "bytes":
        return keccak256(canonical.unhex(value))
    if kind == "bytes32":
        assert canonical.is_hex(value, 32)
        return canonical.unhex(value)
    if kind == "address":
        assert canonical.is_hex(value.lower(), 20)
        return bytes(12) + canonical.unhex(value)
    bits = int(kind.removeprefix("uint"))
    number = int(value)
    assert 0 <= number < 2**bits
    return number.to_bytes(32, "big")


def domain_separator(domain: dict[str, Any]) -> bytes:
    return struct_hash("EIP712Domain", parse_types(DOMAIN), domain)


def digest(domain: dict[str, Any], struct: bytes) -> bytes:
    return keccak256(b"\x19\x01" + domain_separator(domain) + struct)


def recover(digest: bytes, signature: bytes) -> str:
    """The address that signed, of r, s (low), v (27 or 28); ValueError for any other form."""
    r, s, v = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big"), signature[64:]
    order, curve = SECP256k1.order, SECP256k1.curve
    if len(signature) != 65 or v not in (b"\x1b", b"\x1c") or not 0 < r < order or not 0 < s <= order // 2:
        raise ValueError("form of the signature")
    try:
        y = square_root_mod_prime((pow(r, 3, curve.p()) + curve.b()) % curve.p(), curve.p())
    except SquareRootError as error:
        raise ValueError("no point has this r") from error
    if y % 2 != v[0] - 27:
        y = curve.p() - y
    inverse = pow(r, -1, order)
    message = int.from_bytes(digest, "big")
    nonce_point = PointJacobi(curve, r, y, 1, order)
    return address(
        (nonce_point * (s * inverse % order) + SECP256k1.generator * (-message * inverse % order)).to_affine()
    )


def address(point: Any) -> str:
    """Of a public key."""
    return canonical.tohex(keccak256(point.x().to_bytes(32, "big") + point.y().to_bytes(32, "big"))[12:])


def address_of_key(private_key: bytes) -> str:
    return address((SECP256k1.generator * int.from_bytes(private_key, "big")).to_affine())
