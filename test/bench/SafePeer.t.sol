// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IDstackApp, OwnerInfo, SignedApproval, Terms} from "../../contracts/IDstackApp.sol";
import {BaseTest} from "../BaseTest.sol";

interface ISafe {
    function setup(
        address[] calldata owners,
        uint256 threshold,
        address to,
        bytes calldata data,
        address fallbackHandler,
        address paymentToken,
        uint256 payment,
        address payable receiver
    ) external;
    function nonce() external view returns (uint256);
    function getTransactionHash(
        address to,
        uint256 value,
        bytes calldata data,
        uint8 operation,
        uint256 safeTxGas,
        uint256 baseGas,
        uint256 gasPrice,
        address gasToken,
        address refundReceiver,
        uint256 nonce
    ) external view returns (bytes32);
    function execTransaction(
        address to,
        uint256 value,
        bytes calldata data,
        uint8 operation,
        uint256 safeTxGas,
        uint256 baseGas,
        uint256 gasPrice,
        address gasToken,
        address payable refundReceiver,
        bytes memory signatures
    ) external payable returns (bool);
    function approveHash(bytes32 hash) external;
}

/// What a Safe is made to call: an allow-list as dstack's, and one that keeps what DstackApp keeps.
contract Target {
    address private immutable OWNER;
    mapping(bytes32 => bool) public allowed;
    mapping(bytes32 => uint256) private _proposals;
    mapping(bytes32 => bytes32) private _current;
    mapping(uint256 => uint256) private _rest;

    event ComposeHashAdded(bytes32 composeHash);
    event ComposeHashRemoved(bytes32 composeHash);

    constructor(address owner, uint256 owners) {
        OWNER = owner;
        for (uint256 i = 0; i < owners; ++i) {
            _rest[i] = type(uint128).max;
        }
    }

    modifier onlyOwner() {
        require(msg.sender == OWNER);
        _;
    }

    function addComposeHash(bytes32 composeHash) external onlyOwner {
        allowed[composeHash] = true;
        emit ComposeHashAdded(composeHash);
    }

    function removeComposeHash(bytes32 composeHash) external onlyOwner {
        allowed[composeHash] = false;
        emit ComposeHashRemoved(composeHash);
    }

    /// The same words and events as three approvals of DstackApp.
    function approveSameState(Terms calldata terms, uint128 owners) external onlyOwner {
        bytes32 id = keccak256(abi.encode(terms));
        _proposals[id] = (uint256(terms.expiry) << 128) | owners;
        for (uint256 i = 0; i < 3; ++i) {
            _rest[i] -= terms.epsilonBudget;
        }
        emit IDstackApp.ProposalCreated(id, terms.composeHash, terms, 3);
        emit IDstackApp.ProposalApproved(id, owners, owners, true);
        _current[terms.composeHash] = id;
        emit IDstackApp.ProposalActivated(id, terms.composeHash, 0);
    }
}

/// Gas of this contract beside a Safe 1.4.1 (bytecode as published on npm; script/bench-gas fetches it), 3 of 5 owners.
/// forge-config: default.isolate = true
contract SafePeerTest is BaseTest {
    string private constant ARTIFACTS = "target/bench/package/build/artifacts/contracts/";

    Actor[] private signers;
    ISafe private safe;
    Target private target;

    function setUp() public override {
        super.setUp();
        OwnerInfo[] memory founders = new OwnerInfo[](5);
        address[] memory owners = new address[](5);
        string[5] memory names = ["one", "two", "three", "four", "five"];
        Actor[] memory list = new Actor[](5);
        for (uint256 i = 0; i < 5; ++i) {
            list[i] = _actor(names[i]);
        }
        // A Safe wants its signatures in the order of the addresses.
        for (uint256 i = 0; i < 5; ++i) {
            for (uint256 j = i + 1; j < 5; ++j) {
                if (list[j].addr < list[i].addr) (list[i], list[j]) = (list[j], list[i]);
            }
            signers.push(list[i]);
        }
        for (uint256 i = 0; i < 5; ++i) {
            owners[i] = signers[i].addr;
            founders[i] = _ownerInfo(bytes32(i + 1), signers[i].addr, address(0), "XX", 0);
        }
        app = _deploy(founders, 3);
        address singleton = _create(_bytecode("Safe.sol/Safe.json"));
        safe = ISafe(_create(bytes.concat(_bytecode("proxies/SafeProxy.sol/SafeProxy.json"), abi.encode(singleton))));
        safe.setup(owners, 3, address(0), "", address(0), address(0), 0, payable(0));
        target = new Target(address(safe), 5);
        _exec(abi.encodeCall(Target.addComposeHash, ("first"))); // the nonce's slot is written
    }

    function _bytecode(string memory file) private view returns (bytes memory) {
        return vm.parseJsonBytes(vm.readFile(string.concat(ARTIFACTS, file)), ".bytecode");
    }

    function _create(bytes memory code) private returns (address created) {
        assembly {
            created := create(0, add(code, 0x20), mload(code))
        }
        require(created != address(0));
    }

    function _hash(bytes memory data) private view returns (bytes32) {
        return safe.getTransactionHash(address(target), 0, data, 0, 0, 0, 0, address(0), address(0), safe.nonce());
    }

    function _execWith(bytes memory data, bytes memory signatures) private returns (uint256 gas) {
        vm.prank(relayer);
        safe.execTransaction(address(target), 0, data, 0, 0, 0, 0, address(0), payable(0), signatures);
        return vm.lastCallGas().gasTotalUsed;
    }

    function _exec(bytes memory data) private returns (uint256) {
        bytes32 hash = _hash(data);
        bytes memory signatures;
        for (uint256 i = 0; i < 3; ++i) {
            (uint8 v, bytes32 r, bytes32 s) = vm.sign(signers[i].key, hash);
            signatures = abi.encodePacked(signatures, r, s, v);
        }
        return _execWith(data, signatures);
    }

    /// Three transactions that each approve the hash, and one that executes.
    function _execByTransactions(bytes memory data) private returns (uint256 gas) {
        bytes32 hash = _hash(data);
        bytes memory signatures;
        for (uint256 i = 0; i < 3; ++i) {
            vm.prank(signers[i].addr);
            safe.approveHash(hash);
            gas += vm.lastCallGas().gasTotalUsed;
            signatures = abi.encodePacked(signatures, abi.encode(signers[i].addr), bytes32(0), uint8(1));
        }
        return gas + _execWith(data, signatures);
    }

    function _line(string memory name, uint256 peer, uint256 ours) private {
        emit log(string.concat("measured ", name, " ", vm.toString(peer), " ", vm.toString(ours)));
    }

    function _approveBySig(Terms memory t) private returns (uint256) {
        SignedApproval[] memory list = new SignedApproval[](3);
        for (uint256 i = 0; i < 3; ++i) {
            list[i] = _approval(signers[i], t);
        }
        vm.prank(relayer);
        app.approveBySig(t, list);
        return vm.lastCallGas().gasTotalUsed;
    }

    function test_Bench() public {
        Terms memory t = _terms();
        uint256 start = vm.snapshotState();
        uint256 ours = _approveBySig(t);
        bytes32 id = _id(t);
        vm.prank(signers[4].addr);
        app.revoke(id);
        uint256 revoke = vm.lastCallGas().gasTotalUsed;
        vm.revertToState(start);
        uint256 added = _exec(abi.encodeCall(Target.addComposeHash, (t.composeHash)));
        uint256 removed = _exec(abi.encodeCall(Target.removeComposeHash, (t.composeHash)));
        vm.revertToState(start);
        uint256 same = _exec(abi.encodeCall(Target.approveSameState, (t, 7)));
        vm.revertToState(start);
        uint256 approvedHash = _execByTransactions(abi.encodeCall(Target.addComposeHash, (t.composeHash)));
        uint256 transactions = 0;
        for (uint256 i = 0; i < 3; ++i) {
            _approve(signers[i], t);
            transactions += vm.lastCallGas().gasTotalUsed;
        }
        _line("approve-by-signature-same-state", same, ours);
        _line("approve-by-signature-allow-list", added, ours);
        _line("approve-by-transaction", approvedHash, transactions);
        _line("revoke", removed, revoke);
    }
}
