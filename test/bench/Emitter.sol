// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {DatasetInfo, IDstackApp, Receipt, Terms} from "../../contracts/IDstackApp.sol";

/// A consortium with nothing but its events, for `make bench-indexer`: founded by the constructor, and in every further
/// block one recipe with its life of 100 events. Ids are functions of the block's place, so that questions can name them.
contract Emitter {
    uint8 private constant OWNERS = 4;
    uint8 private constant THRESHOLD = 3;
    uint64 private constant EPSILON = 1_000_000_000;
    /// Each run has two events; what is around them has 14.
    uint256 private constant RUNS = 43;

    constructor() {
        emit IDstackApp.AppCreated("bench", "health", THRESHOLD, address(9), 1 hours);
        for (uint8 index; index < OWNERS; index++) {
            bytes32 ownerId = bytes32(abi.encodePacked("owner-", bytes1(uint8(65 + index))));
            emit IDstackApp.OwnerAdded(ownerId, address(uint160(index) + 16), address(0), "CH", 3, index);
            emit IDstackApp.OwnerBudget(index, 10 ** 6 * EPSILON, 0, 0, 0);
        }
    }

    /// 100 events. The last run stays open, so that its keys may be released.
    function emitRecipe(uint64 place) external {
        bytes32 proposalId = id("proposal", place, 0);
        bytes32 composeHash = id("compose", place, 0);
        emit IDstackApp.ProposalCreated(proposalId, composeHash, _terms(composeHash), THRESHOLD);
        for (uint8 index; index < THRESHOLD; index++) {
            emit IDstackApp.ProposalApproved(proposalId, uint128(1) << index, (uint128(2) << index) - 1, index % 2 == 0);
            emit IDstackApp.OwnerBudget(index, 10 ** 6 * EPSILON, place * EPSILON, 0, 0);
        }
        emit IDstackApp.ProposalActivated(proposalId, composeHash, 0);
        for (uint8 index; index < OWNERS; index++) {
            bytes32 datasetId = id("dataset", place, index);
            emit IDstackApp.DatasetRegistered(
                datasetId, index, DatasetInfo(datasetId, composeHash, "EU-West", "EHR", 300, 1 << 20, 0)
            );
        }
        for (uint256 number; number < RUNS; number++) {
            _run(proposalId, id("run", place, number), number);
        }
        emit IDstackApp.RunOpened(
            id("run", place, RUNS), proposalId, address(0xaa), 7, EPSILON, 0, uint64(RUNS + 1) * EPSILON, 0
        );
        emit IDstackApp.ProposalRejected(proposalId, OWNERS - 1, "too small a cohort");
    }

    function id(string memory what, uint64 place, uint256 number) public pure returns (bytes32) {
        return keccak256(abi.encode(what, place, number));
    }

    function _run(bytes32 proposalId, bytes32 runId, uint256 number) private {
        uint64 spent = uint64(number + 1) * EPSILON;
        emit IDstackApp.RunOpened(runId, proposalId, address(0xaa), 7, EPSILON, 0, spent, 0);
        bytes32 hash = keccak256(abi.encode(runId));
        Receipt memory receipt = Receipt(runId, hash, hash, hash, EPSILON, 0, 1, uint64(block.timestamp));
        emit IDstackApp.ReceiptPosted(runId, proposalId, address(0xbb), receipt, hash);
    }

    function _terms(bytes32 composeHash) private pure returns (Terms memory) {
        uint64 budget = 1_000 * EPSILON;
        return Terms(composeHash, "recipe", "schema", EPSILON, 0, budget, 0, type(uint64).max, 0, 0, 0, 0);
    }
}
