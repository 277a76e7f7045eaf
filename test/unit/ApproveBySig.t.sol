// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IApp} from "../utils/IApp.sol";
import {Decision, IDstackApp, OwnerInfo, SignedApproval, Terms} from "../../contracts/IDstackApp.sol";
import {BaseTest} from "../BaseTest.sol";
import {TypedDataTwin} from "../utils/TypedDataTwin.sol";
import {BrokenWallet, ContractWallet} from "../utils/Wallets.sol";

contract ApproveBySigTest is BaseTest {
    function _relay(Terms memory t, SignedApproval[] memory approvals) private returns (bytes32) {
        vm.prank(relayer);
        return app.approveBySig(t, approvals);
    }

    function _three(Terms memory t) private view returns (SignedApproval[] memory list) {
        list = new SignedApproval[](3);
        list[0] = _approval(alice, t);
        list[1] = _approval(bob, t);
        list[2] = _approval(carol, t);
    }

    function test_ApproveBySig_RevertWhen_WrongEra() public {
        Terms memory t = _terms();
        t.era = 1;
        SignedApproval[] memory list = _three(t);
        vm.expectRevert(abi.encodeWithSelector(IDstackApp.DstackApp_WrongEra.selector, 1, 0));
        _relay(t, list);
    }

    function test_ApproveBySig_RevertWhen_TermsAreInvalid() public {
        Terms memory t = _terms();
        t.recipeHash = 0;
        SignedApproval[] memory list = _three(t);
        vm.expectRevert(_invalid("recipeHash"));
        _relay(t, list);
    }

    function test_ApproveBySig_RevertWhen_Revoked() public {
        Terms memory t = _terms();
        vm.prank(dave.addr);
        app.revoke(_id(t));
        SignedApproval[] memory list = _three(t);
        vm.expectRevert(_notLive(_id(t), Decision.ProposalRevoked));
        _relay(t, list);
    }

    function test_ApproveBySig_RevertWhen_Superseded() public {
        Terms memory t = _terms();
        bytes32 id = _live(t);
        t.round = 1;
        _live(t);
        t.round = 0;
        SignedApproval[] memory list = _approvals(dave, t);
        vm.expectRevert(_notLive(id, Decision.ProposalSuperseded));
        _relay(t, list);
    }

    function test_ApproveBySig_RevertWhen_SignerIsNoOwner() public {
        Terms memory t = _terms();
        SignedApproval[] memory list = _three(t);
        list[1] = _approval(stranger, t);
        vm.expectRevert(_notAnOwner(stranger.addr));
        _relay(t, list);
    }

    function test_ApproveBySig_RevertWhen_DeadlinePassed() public {
        Terms memory t = _terms();
        SignedApproval[] memory list = _three(t);
        vm.warp(list[0].deadline + 1);
        vm.expectRevert(
            abi.encodeWithSelector(IDstackApp.DstackApp_DeadlinePassed.selector, list[0].deadline, list[0].deadline + 1)
        );
        _relay(t, list);
        vm.warp(list[0].deadline);
        _relay(t, list);
    }

    /// One bad signature and nothing of the batch stays.
    function test_ApproveBySig_RevertWhen_SignedByAnother() public {
        Terms memory t = _terms();
        SignedApproval[] memory list = _three(t);
        list[2].owner = dave.addr;
        vm.expectRevert(_badSignature(dave.addr));
        _relay(t, list);
        (uint128 approvals,,,,,,) = app.proposal(_id(t));
        assertEq(approvals, 0);
    }

    /// R3: not for another deadline, other terms, another contract or another chain.
    function test_ApproveBySig_RevertWhen_SignedForSomethingElse() public {
        Terms memory t = _terms();
        SignedApproval[] memory list = _approvals(alice, t);

        list[0].deadline += 1;
        vm.expectRevert(_badSignature(alice.addr));
        _relay(t, list);
        list[0].deadline -= 1;

        t.epsilonBudget += 1;
        vm.expectRevert(_badSignature(alice.addr));
        _relay(t, list);
        t.epsilonBudget -= 1;

        IApp twin = _deploy(_founders(), 3);
        vm.expectRevert(_badSignature(alice.addr));
        twin.approveBySig(t, list);

        vm.chainId(8453);
        vm.expectRevert(_badSignature(alice.addr));
        _relay(t, list);

        vm.chainId(31337);
        _relay(t, list);
    }

    function testFuzz_ApproveBySig_RevertWhen_SignatureIsGarbage(bytes calldata garbage) public {
        Terms memory t = _terms();
        SignedApproval[] memory list = _approvals(alice, t);
        list[0].signature = garbage;
        vm.expectRevert(_badSignature(alice.addr));
        _relay(t, list);
    }

    function test_ApproveBySig_RevertWhen_SignatureIsMalleated() public {
        Terms memory t = _terms();
        SignedApproval[] memory list = _approvals(alice, t);
        bytes memory raw = list[0].signature;
        (bytes32 r, bytes32 s) = abi.decode(raw, (bytes32, bytes32));
        uint256 order = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141;
        uint8 v = uint8(raw[64]) == 27 ? 28 : 27;
        list[0].signature = abi.encodePacked(r, bytes32(order - uint256(s)), v);
        vm.expectRevert(_badSignature(alice.addr));
        _relay(t, list);
    }

    function test_ApproveBySig_RevertWhen_BeyondTheOwnersCap() public {
        vm.prank(bob.addr);
        app.setOwnerCap(EPSILON, DELTA);
        Terms memory t = _terms();
        SignedApproval[] memory list = _three(t);
        vm.expectRevert(abi.encodeWithSelector(IDstackApp.DstackApp_OwnerCapExceeded.selector, 1, EPSILON, 3 * EPSILON));
        _relay(t, list);
    }

    function test_ApproveBySig_ABatchReachesTheQuorum() public {
        Terms memory t = _terms();
        bytes32 id = _id(t);
        SignedApproval[] memory list = _three(t);
        vm.expectEmit();
        emit IDstackApp.ProposalCreated(id, t.composeHash, t, 3);
        vm.expectEmit();
        emit IDstackApp.ProposalApproved(id, 7, 7, true);
        vm.expectEmit();
        emit IDstackApp.ProposalActivated(id, t.composeHash, 0);
        assertEq(_relay(t, list), id);
        _assertDecision(_decision(id), Decision.Allow);
    }

    /// Somebody relays one approval first: the batch still goes through. Nor does a repetition count twice.
    function test_ApproveBySig_SkipsWhatIsGiven() public {
        Terms memory t = _terms();
        SignedApproval[] memory list = _three(t);
        _approve(bob, t);
        list[2] = list[0];
        list[1].signature = "";
        list[1].deadline = 0;
        vm.expectEmit();
        emit IDstackApp.ProposalApproved(_id(t), 1, 3, true);
        _relay(t, list);
        (, uint64 committed,,) = app.ownerBudget(0);
        assertEq(committed, 3 * EPSILON);

        vm.recordLogs();
        _relay(t, list);
        assertEq(vm.getRecordedLogs().length, 0);
    }

    function test_ApproveBySig_NoneCreatesNothing() public {
        Terms memory t = _terms();
        _relay(t, new SignedApproval[](0));
        _assertDecision(_decision(_id(t)), Decision.ProposalUnknown);
    }

    /// An EIP-7702 account has code that knows nothing of EIP-1271; its key signs as before.
    function test_ApproveBySig_AcceptsAnEip7702Account() public {
        vm.etch(alice.addr, bytes.concat(hex"ef0100", bytes20(address(new BrokenWallet(BrokenWallet.Fault.Reverts)))));
        Terms memory t = _terms();
        _relay(t, _approvals(alice, t));
        (uint128 approvals,,,,,,) = app.proposal(_id(t));
        assertEq(approvals, 1);
    }

    function test_ApproveBySig_AcceptsAContractWallet() public {
        ContractWallet wallet = new ContractWallet(stranger.addr);
        OwnerInfo[] memory founders = _founders();
        founders[0].account = address(wallet);
        app = _deploy(founders, 1);
        Terms memory t = _terms();
        SignedApproval[] memory list = new SignedApproval[](1);
        uint64 deadline = START + 1;
        bytes32 structHash = TypedDataTwin.approve(address(wallet), t, deadline);
        list[0] = SignedApproval(address(wallet), deadline, _sign(stranger, structHash));
        _relay(t, list);
        _assertDecision(_decision(_id(t)), Decision.Allow);
    }

    function testFuzz_ApproveBySig_RevertWhen_AContractWalletDoesNotSayYes(uint8 fault) public {
        BrokenWallet wallet = new BrokenWallet(BrokenWallet.Fault(bound(fault, 0, 3)));
        OwnerInfo[] memory founders = _founders();
        founders[0].account = address(wallet);
        app = _deploy(founders, 1);
        Terms memory t = _terms();
        SignedApproval[] memory list = new SignedApproval[](1);
        bytes32 structHash = TypedDataTwin.approve(address(wallet), t, START + 1);
        list[0] = SignedApproval(address(wallet), START + 1, _sign(stranger, structHash));
        vm.expectRevert(_badSignature(address(wallet)));
        _relay(t, list);
    }
}
