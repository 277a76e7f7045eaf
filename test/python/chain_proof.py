"""Section `chain` of a result file, docs/spec/evidence.md: tries, headers and storage words, from the page alone."""

from dataclasses import dataclass
from typing import Any

from canonical import unhex
from result import Json, nano, require, signed_by_analyst
from typed_data import keccak256

Item = bytes | list[Any]


def decode(data: bytes) -> Item:
    """One RLP item that is all of `data`."""
    item, rest = take(data)
    if rest:
        raise ValueError("bytes after the item")
    return item


def take(data: bytes) -> tuple[Item, bytes]:
    first = data[0]
    if first < 0x80:
        return data[:1], data[1:]
    is_list, base = (False, 0x80) if first < 0xC0 else (True, 0xC0)
    start = 1
    size = first - base
    if size > 55:
        start = 1 + size - 55
        size = int.from_bytes(data[1:start], "big")
    body, rest = data[start : start + size], data[start + size :]
    if len(body) != size:
        raise ValueError("the item is cut")
    if not is_list:
        return body, rest
    items: list[Any] = []
    while body:
        item, body = take(body)
        items.append(item)
    return items, rest


def nibbles(key: bytes) -> list[int]:
    return [half for byte in key for half in (byte >> 4, byte & 15)]


def lookup(root: bytes, key: bytes, proof: list[str]) -> bytes | None:
    """The leaf at `key`, or None if the nodes show that there is none; ValueError if they show neither."""
    nodes = [unhex(node) for node in proof]
    expected: bytes = root
    path = nibbles(key)
    node: Any = None
    while True:
        if isinstance(expected, list):
            node = expected  # short nodes stand in their parent
        else:
            if not nodes or keccak256(nodes[0]) != expected:
                raise ValueError("not the node that its parent names")
            node = decode(nodes.pop(0))
        if len(node) == 17:
            if not path:
                value = node[16]
                break
            expected, path = node[path[0]], path[1:]
            if expected == b"":
                value = b""
                break
            continue
        prefix = nibbles(node[0])
        prefix = prefix[1:] if prefix[0] & 1 else prefix[2:]
        is_leaf = node[0][0] >> 5 & 1
        if is_leaf:
            value = node[1] if prefix == path else b""
            break
        if path[: len(prefix)] != prefix:
            value = b""
            break
        expected, path = node[1], path[len(prefix) :]
    if nodes:
        raise ValueError("nodes that are not on the way")
    return value or None


def number(data: Any) -> int:
    return int.from_bytes(data, "big")


def mapping(key: bytes, slot: int, offset: int = 0) -> bytes:
    base = number(keccak256(key + slot.to_bytes(32, "big")))
    return ((base + offset) % 2**256).to_bytes(32, "big")


def word(address: str) -> bytes:
    return bytes(12) + unhex(address)


def slots(result: Json) -> list[bytes]:
    run = unhex(result["receipt"]["run_id"])
    listed = [
        bytes(32),
        (8).to_bytes(32, "big"),
        mapping(unhex(result["run"]["proposal_id"]), 5),
        mapping(word(result["run"]["analyst"]), 14),
        mapping(word(result["certificate"]["agent"]), 15),
        mapping(run, 9),
        mapping(run, 9, 1),
    ]
    for given in result["inputs"]:
        dataset = unhex(given["dataset_id"])
        listed.append(mapping(given["owner"].encode().ljust(32, b"\0"), 2))
        listed += [mapping(dataset, 10), mapping(dataset, 10, 1)]
    return listed


def fields(value: bytes, *widths: int) -> list[int]:
    """The fields of a word from its low end on; nothing may be left above them."""
    rest = number(value)
    out = []
    for width in widths:
        out.append(rest & (256**width - 1))
        rest >>= 8 * width
    require(rest == 0, "storage proofs")
    return out


@dataclass
class Proved:
    """What the section shows."""

    timestamp: int
    code_hash: bytes
    words: list[bytes]
    logs: list[Any]
    transaction: bytes
    analyst_has_code: bool


EMPTY = keccak256(b"")


def prove(result: Json) -> Proved:
    """Refused, naming the check of docs/spec/evidence.md that fails."""
    chain, position = result["chain"], result["position"]
    raw = unhex(chain["header"])
    header = decode(raw)
    same = keccak256(raw) == unhex(position["block_hash"]) and number(header[8]) == position["block_number"]
    require(same, "block header")
    logs = posted(chain["receipt"], header[5])
    transaction = at_index(chain["receipt"], header[4], "transaction", "transaction_proof", "transaction")
    told = chain["analyst"]
    analyst = account(header[3], result["run"]["analyst"], told["account"], told["proof"], missing=b"")
    if "registry" in chain:
        lists = chain["registry"]
        _, _, root, _ = decode(account(header[3], lists["address"], lists["account"], lists["account_proof"]))
        require(all(number(word) == 1 for word in under(root, lists["storage"])), "CVM image")
    _, _, root, code = decode(account(header[3], result["app"], chain["account"], chain["account_proof"]))
    require([unhex(entry["slot"]) for entry in chain["storage"]] == slots(result), "storage proofs")
    words = under(root, chain["storage"])
    has_code = analyst != b"" and decode(analyst)[3] != EMPTY
    return Proved(number(header[11]), code, words, logs, keccak256(transaction), has_code)


def account(
    root: bytes, address: str, encoded: str, proof: list[str], missing: bytes | None = None
) -> bytes:
    """The account's RLP; `missing` where the proof shows that there is none."""
    found = shown(root, keccak256(unhex(address)), proof, missing)
    require(found is not None and found == unhex(encoded), "account proof")
    return unhex(encoded)


def under(root: bytes, entries: list[Json]) -> list[bytes]:
    """The words, each under a contract's storage root."""
    for entry in entries:
        leaf = shown(root, keccak256(unhex(entry["slot"])), entry["proof"], missing=b"")
        require(leaf is not None, "storage proofs")
        stored = decode(leaf) if leaf else b""
        require(stored == unhex(entry["word"]).lstrip(b"\0"), "storage proofs")
    return [unhex(entry["word"]) for entry in entries]


def shown(root: bytes, key: bytes, proof: list[str], missing: bytes | None = None) -> bytes | None:
    """The leaf; `missing` if there is none; None if the proof does not hold."""
    try:
        leaf = lookup(root, key, proof)
    except (ValueError, IndexError):
        return None
    return missing if leaf is None else leaf


def posted(receipt: Json, root: bytes) -> list[Any]:
    encoded = at_index(receipt, root, "receipt", "proof", "receipt proof")
    status, _, _, logs = decode(encoded[1:] if encoded[0] < 0x80 else encoded)
    require(status == b"\x01", "receipt proof")
    return logs


def at_index(receipt: Json, root: bytes, what: str, proof: str, check: str) -> bytes:
    index = receipt["index"]
    key = bytes([0x80]) if index == 0 else index.to_bytes((index.bit_length() + 7) // 8, "big")
    key = key if len(key) == 1 and (key[0] < 0x80 or index == 0) else bytes([0x80 + len(key)]) + key
    encoded = unhex(receipt[what])
    require(shown(root, key, receipt[proof]) == encoded, check)
    return encoded


RECEIPT_POSTED = keccak256(
    b"ReceiptPosted(bytes32,bytes32,address,"
    b"(bytes32,bytes32,bytes32,bytes32,uint64,uint64,uint8,uint64),bytes32)"
)


CLOCKS_APART = 900


def check(result: Json, digest: bytes) -> None:
    """`digest`: of the receipt. Refused, naming the first check that fails."""
    proved = prove(result)
    topics = [
        RECEIPT_POSTED,
        unhex(result["receipt"]["run_id"]),
        unhex(result["run"]["proposal_id"]),
        word(result["certificate"]["agent"]),
    ]
    app = unhex(result["app"])
    told = any(log[0] == app and log[1] == topics and log[2][-32:] == digest for log in proved.logs)
    require(told, "receipt on chain")
    require(proved.transaction == unhex(result["position"]["transaction"]), "transaction")
    require(proved.analyst_has_code or signed_by_analyst(result), "request signature")
    config, root, proposal, analyst, agent, stored, run, *inputs = proved.words
    active, threshold, _, _, era, _ = fields(config, 16, 1, 1, 1, 4, 8)
    approvals, expiry, of_era, runs, snapshot, revoked, superseded = fields(proposal, 16, 5, 4, 4, 1, 1, 1)
    (is_analyst,), (agent_revoked,) = fields(analyst, 1), fields(agent, 1)
    participants, opened, closed = fields(run, 16, 8, 1)
    require({revoked, superseded, is_analyst, agent_revoked, closed} <= {0, 1}, "storage proofs")
    wanted = int(result["run"]["participants"])
    require(stored == digest and opened != 0 and closed == 1 and participants == wanted, "run on chain")
    produced_at = result["receipt"]["produced_at"]
    require(opened - CLOCKS_APART <= produced_at <= proved.timestamp + CLOCKS_APART, "time")
    require(root[12:] == unhex(result["binding"]["kms_root"]), "pinned root")
    terms = result["terms"]
    live = not revoked and snapshot and not superseded and of_era == era and proved.timestamp < expiry
    reached = (approvals & active).bit_count() >= max(threshold, snapshot)
    require(bool(live) and reached and of_era == terms["era"] and expiry == terms["expiry"], "quorum")
    require(wanted & ~approvals == 0, "own approval")
    require(owners(inputs, active, unhex(terms["compose_hash"])) == wanted, "datasets")
    require(is_analyst == 1, "analyst")
    require(agent_revoked == 0, "agent key")
    spent = runs * nano(terms["epsilon_per_run"]), runs * int(terms["delta_per_run"])
    within = spent[0] <= nano(terms["epsilon_budget"]) and spent[1] <= int(terms["delta_budget"])
    require(within and runs >= 1, "budget")


def owners(words: list[bytes], active: int, compose_hash: bytes) -> int:
    """Bit set of the owners of the inputs, each of which must be in order."""
    out = 0
    for owner, compose, state in zip(words[::3], words[1::3], words[2::3], strict=True):
        (index_plus_one,) = fields(owner, 1)
        registered, superseded, index = fields(state, 1, 1, 1)
        require({registered, superseded} <= {0, 1}, "storage proofs")
        bit = 1 << index
        fits = registered and index_plus_one == index + 1 and compose == compose_hash and active & bit
        require(bool(fits), "datasets")
        out |= bit
    return out
