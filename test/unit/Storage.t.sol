// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Decision, IDstackApp, Terms} from "../../contracts/IDstackApp.sol";
import {BaseTest} from "../BaseTest.sol";

/// The release decision from raw storage words, as a key service computes it from an eth_getProof answer: eight words
/// and the block's timestamp. The slots are those of test/golden/DstackApp.storage.json.
contract StorageTest is BaseTest {
    uint256 private constant CONFIG = 0;
    uint256 private constant INDEX_OF = 2;
    uint256 private constant PROPOSALS = 5;
    uint256 private constant CURRENT = 6;
    uint256 private constant RUNS = 9;
    uint256 private constant DATASETS = 10;

    struct Question {
        bytes32 proposalId;
        bytes32 composeHash;
        bytes32 ownerId;
        bytes32 datasetId;
        bytes32 runId;
    }

    Terms private t;
    Question private q;

    function setUp() public override {
        super.setUp();
        t = _terms();
        q.proposalId = _live(t);
        q.composeHash = t.composeHash;
        q.ownerId = "hospital-B";
        q.datasetId = "data-B";
        vm.prank(bob.addr);
        app.registerDataset(_dataset("data-B", t));
        q.runId = _open(t, _request(t, 6));
    }

    function _word(bytes32 key, uint256 slot, uint256 offset) private view returns (uint256) {
        return uint256(vm.load(address(app), bytes32(uint256(keccak256(abi.encode(key, slot))) + offset)));
    }

    function _bits(uint256 word, uint256 fromByte, uint256 bytes_) private pure returns (uint256) {
        return (word >> (8 * fromByte)) & ((1 << (8 * bytes_)) - 1);
    }

    function _count(uint256 set) private pure returns (uint256 n) {
        for (; set != 0; set >>= 1) {
            n += set & 1;
        }
    }

    function _proposalFromSlots() private view returns (Decision) {
        uint256 config = uint256(vm.load(address(app), bytes32(CONFIG)));
        uint256 p = _word(q.proposalId, PROPOSALS, 0);
        if (_bits(p, 30, 1) != 0) return Decision.ProposalRevoked;
        if (_bits(p, 29, 1) == 0) return Decision.ProposalUnknown;
        if (_bits(p, 31, 1) != 0) return Decision.ProposalSuperseded;
        if (_bits(p, 21, 4) != _bits(config, 19, 4)) return Decision.EraEnded;
        if (block.timestamp >= _bits(p, 16, 5)) return Decision.ProposalExpired;
        if (_count(_bits(p, 0, 16) & _bits(config, 0, 16)) < _bits(config, 16, 1)) return Decision.NoQuorum;
        return Decision.Allow;
    }

    function _fromSlots() private view returns (Decision) {
        Decision reason = _proposalFromSlots();
        if (reason != Decision.Allow) return reason;
        if (bytes32(_word(q.composeHash, CURRENT, 0)) != q.proposalId) return Decision.ComposeMismatch;
        uint256 indexPlusOne = _word(q.ownerId, INDEX_OF, 0);
        uint256 active = _bits(uint256(vm.load(address(app), bytes32(CONFIG))), 0, 16);
        if (indexPlusOne == 0 || (active >> (indexPlusOne - 1)) & 1 == 0) return Decision.NotAnOwner;
        uint256 index = indexPlusOne - 1;
        if ((_word(q.proposalId, PROPOSALS, 0) >> index) & 1 == 0) return Decision.OwnerNotApproved;
        uint256 d = _word(q.datasetId, DATASETS, 1);
        bool mine = _bits(d, 0, 1) != 0 && _bits(d, 2, 1) == index;
        if (!mine || bytes32(_word(q.datasetId, DATASETS, 0)) != q.composeHash) return Decision.DatasetUnknown;
        if (_bits(d, 1, 1) != 0) return Decision.DatasetSuperseded;
        uint256 r = _word(q.runId, RUNS, 1);
        if (_bits(r, 24, 1) != 0) return Decision.RunClosed;
        if (bytes32(_word(q.runId, RUNS, 0)) != q.proposalId) return Decision.RunUnknown;
        if ((r >> index) & 1 == 0) return Decision.OwnerNotInRun;
        return Decision.Allow;
    }

    function _assertSame(Decision want) private view {
        Decision have = app.releaseDecision(q.proposalId, q.composeHash, q.ownerId, q.datasetId, q.runId);
        _assertDecision(have, want);
        _assertDecision(_fromSlots(), want);
    }

    function test_Storage_EachDecisionFollowsFromTheWords() public {
        _assertSame(Decision.Allow);
        uint256 snapshot = vm.snapshotState();

        q.proposalId = "none";
        _assertSame(Decision.ProposalUnknown);
        vm.revertToState(snapshot);

        vm.prank(dave.addr);
        app.revoke(q.proposalId);
        _assertSame(Decision.ProposalRevoked);
        vm.revertToState(snapshot);

        Terms memory next = _terms();
        next.round = 1;
        _live(next);
        _assertSame(Decision.ProposalSuperseded);
        vm.revertToState(snapshot);

        vm.prank(dave.addr);
        app.revokeAll();
        _assertSame(Decision.EraEnded);
        vm.revertToState(snapshot);

        vm.warp(t.expiry);
        _assertSame(Decision.ProposalExpired);
        vm.revertToState(snapshot);

        vm.prank(address(app));
        app.setThreshold(4);
        _assertSame(Decision.NoQuorum);
        vm.revertToState(snapshot);

        q.composeHash = "other";
        _assertSame(Decision.ComposeMismatch);
        vm.revertToState(snapshot);

        q.ownerId = "none";
        _assertSame(Decision.NotAnOwner);
        vm.revertToState(snapshot);

        q.ownerId = "hospital-D";
        _assertSame(Decision.OwnerNotApproved);
        vm.revertToState(snapshot);

        q.ownerId = "hospital-C";
        _assertSame(Decision.DatasetUnknown);
        vm.revertToState(snapshot);

        q.runId = "none";
        _assertSame(Decision.RunUnknown);
        vm.revertToState(snapshot);

        _post(_receipt(q.runId), _certificate(t));
        _assertSame(Decision.RunClosed);
        vm.revertToState(snapshot);

        q.ownerId = "hospital-A";
        q.datasetId = "data-A";
        vm.prank(alice.addr);
        app.registerDataset(_dataset("data-A", t));
        _assertSame(Decision.OwnerNotInRun);
    }
}
