// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Vm} from "forge-std/Vm.sol";

import {DstackKms} from "../../contracts/DstackKms.sol";
import {AppBootInfo} from "../../contracts/IDstackApp.sol";
import {BaseTest} from "../BaseTest.sol";
import {StockApp, StockKms} from "./StockModel.sol";

/// The same random operations on dstack's contracts (as modelled) and on ours: the same success, the same events, the same
/// answers to random boot information with the reasons letter by letter.
contract DifferentialTest is BaseTest {
    uint256 private constant STEPS = 24;
    uint256 private constant QUESTIONS = 4;
    address private constant NO_CODE = address(0xc0de1e55);
    address private operator = makeAddr("operator");
    StockApp private stock;
    StockKms private stockKms;
    DstackKms private kms;
    uint256 private entropy;

    function setUp() public override {
        super.setUp();
        stock = new StockApp(operator);
        stockKms = new StockKms(operator);
        kms = new DstackKms(operator);
        // Ours is founded stricter on the TCB and with any device; the comparison starts from the same switches.
        vm.startPrank(address(app));
        app.setAllowAnyDevice(false);
        app.setRequireTcbUpToDate(false);
        vm.stopPrank();
    }

    /// forge-config: default.fuzz.runs = 48
    function testFuzz_App_SameAnswers(uint256 seed) public {
        entropy = seed;
        for (uint256 i = 0; i < STEPS; ++i) {
            bytes memory call = _appCall();
            // Who may is the owner there and the contract itself here; a stranger may nowhere.
            bool allowed = _below(8) != 0;
            bytes32 theirs = _logged(allowed ? operator : stranger.addr, address(stock), call);
            bytes32 ours = _logged(allowed ? address(app) : stranger.addr, address(app), call);
            assertEq(ours, theirs, "success and events");
            for (uint256 q = 0; q < QUESTIONS; ++q) {
                AppBootInfo memory boot = _boot(address(app));
                _assertSame(address(stock), address(app), abi.encodeCall(StockApp.isAppAllowed, (boot)));
                bytes memory view_ = abi.encodeCall(stock.allowedComposeHashes, (boot.composeHash));
                _assertSame(address(stock), address(app), view_);
                view_ = abi.encodeCall(stock.allowedDeviceIds, (boot.deviceId));
                _assertSame(address(stock), address(app), view_);
            }
            _assertSame(address(stock), address(app), abi.encodeCall(stock.allowAnyDevice, ()));
            _assertSame(address(stock), address(app), abi.encodeCall(stock.requireTcbUpToDate, ()));
        }
    }

    /// forge-config: default.fuzz.runs = 48
    function testFuzz_Kms_SameAnswers(uint256 seed) public {
        entropy = seed;
        vm.startPrank(address(app));
        app.addComposeHash(_id(1));
        app.addDevice(_id(2));
        vm.stopPrank();
        for (uint256 i = 0; i < STEPS; ++i) {
            bytes memory call = _kmsCall();
            address caller = _below(8) != 0 ? operator : stranger.addr;
            assertEq(_succeeds(caller, address(kms), call), _succeeds(caller, address(stockKms), call), "success");
            for (uint256 q = 0; q < QUESTIONS; ++q) {
                AppBootInfo memory boot = _boot(_appId());
                _assertSame(address(stockKms), address(kms), abi.encodeCall(StockKms.isAppAllowed, (boot)));
                _assertSame(address(stockKms), address(kms), abi.encodeCall(StockKms.isKmsAllowed, (boot)));
                bytes memory view_ = abi.encodeCall(stockKms.registeredApps, (boot.appId));
                _assertSame(address(stockKms), address(kms), view_);
            }
        }
    }

    /// dstack asks an app for its own id only; that another's is refused is ours alone.
    function testFuzz_App_OtherIdsAreRefused(address other, uint256 seed) public {
        vm.assume(other != address(app));
        entropy = seed;
        (bool allowed, string memory reason) = app.isAppAllowed(_boot(other));
        assertFalse(allowed);
        assertEq(reason, "App id mismatch");
    }

    // ---- what dstack's tools call on a registry -----------------------------------------------------------------

    function test_Kms_QuoteAndEventLogAreReplacedAlone() public {
        bytes[2] memory calls =
            [abi.encodeCall(kms.setKmsQuote, (hex"aabb")), abi.encodeCall(kms.setKmsEventlog, (hex"ccdd"))];
        for (uint256 i = 0; i < 2; ++i) {
            assertFalse(_succeeds(stranger.addr, address(kms), calls[i]));
            assertTrue(_succeeds(operator, address(kms), calls[i]));
        }
        (bytes memory k256, bytes memory ca, bytes memory quote, bytes memory eventlog) = kms.kmsInfo();
        assertEq(abi.encode(k256, ca, quote, eventlog), abi.encode("", "", hex"aabb", hex"ccdd"));
    }

    function testFuzz_Kms_SupportsInterface(bytes4 id) public view {
        assertTrue(kms.supportsInterface(0x01ffc9a7));
        assertTrue(kms.supportsInterface(0x1e079198));
        vm.assume(id != 0x01ffc9a7 && id != 0x1e079198);
        assertFalse(kms.supportsInterface(id));
    }

    // ---- random choices -----------------------------------------------------------------------------------------

    function _below(uint256 bound) private returns (uint256) {
        entropy = uint256(keccak256(abi.encode(entropy)));
        return entropy % bound;
    }

    /// Few ids, so that lists and questions meet; one in 64 is any word.
    function _anyId() private returns (bytes32) {
        return _below(64) == 0 ? bytes32(entropy) : _id(1 + _below(4));
    }

    function _id(uint256 n) private pure returns (bytes32) {
        return keccak256(abi.encode(n));
    }

    function _appId() private returns (address) {
        address[5] memory ids = [address(app), address(stock), address(this), NO_CODE, address(0)];
        return ids[_below(5)];
    }

    function _appCall() private returns (bytes memory) {
        bytes4[6] memory selectors = [
            StockApp.addComposeHash.selector,
            StockApp.removeComposeHash.selector,
            StockApp.addDevice.selector,
            StockApp.removeDevice.selector,
            StockApp.setAllowAnyDevice.selector,
            StockApp.setRequireTcbUpToDate.selector
        ];
        uint256 which = _below(6);
        return which < 4
            ? abi.encodeWithSelector(selectors[which], _anyId())
            : abi.encodeWithSelector(selectors[which], _below(2) == 0);
    }

    function _kmsCall() private returns (bytes memory) {
        bytes4[6] memory selectors = [
            StockKms.addOsImageHash.selector,
            StockKms.removeOsImageHash.selector,
            StockKms.addKmsAggregatedMr.selector,
            StockKms.removeKmsAggregatedMr.selector,
            StockKms.addKmsDevice.selector,
            StockKms.removeKmsDevice.selector
        ];
        if (_below(3) == 0) return abi.encodeCall(StockKms.registerApp, (_appId()));
        return abi.encodeWithSelector(selectors[_below(6)], _anyId());
    }

    function _boot(address appId) private returns (AppBootInfo memory b) {
        string[6] memory statuses = ["UpToDate", "UpToDate", "UpToDate", "OutOfDate", "uptodate", ""];
        b.appId = appId;
        b.composeHash = _anyId();
        b.instanceId = address(uint160(_below(type(uint160).max)));
        b.deviceId = _anyId();
        b.mrAggregated = _anyId();
        b.mrSystem = _anyId();
        b.osImageHash = _anyId();
        b.tcbStatus = statuses[_below(6)];
        b.advisoryIds = new string[](_below(3));
    }

    // ---- comparison ---------------------------------------------------------------------------------------------

    function _succeeds(address caller, address to, bytes memory call) private returns (bool ok) {
        vm.prank(caller);
        (ok,) = to.call(call);
    }

    /// Success, and dstack's management events in their order.
    function _logged(address caller, address to, bytes memory call) private returns (bytes32 seen) {
        vm.recordLogs();
        seen = keccak256(abi.encode(_succeeds(caller, to, call)));
        Vm.Log[] memory logs = vm.getRecordedLogs();
        for (uint256 i = 0; i < logs.length; ++i) {
            if (!_isManagement(logs[i].topics[0])) continue;
            seen = keccak256(abi.encode(seen, logs[i].topics, logs[i].data));
        }
    }

    function _isManagement(bytes32 topic) private pure returns (bool) {
        return topic == StockApp.ComposeHashAdded.selector || topic == StockApp.ComposeHashRemoved.selector
            || topic == StockApp.DeviceAdded.selector || topic == StockApp.DeviceRemoved.selector
            || topic == StockApp.AllowAnyDeviceSet.selector || topic == StockApp.RequireTcbUpToDateSet.selector;
    }

    /// Both answer with the same bytes, or neither answers.
    function _assertSame(address theirs, address ours, bytes memory question) private view {
        (bool theyAnswer, bytes memory want) = theirs.staticcall(question);
        (bool weAnswer, bytes memory have) = ours.staticcall(question);
        assertEq(weAnswer, theyAnswer, "answers at all");
        if (theyAnswer) assertEq(have, want, "answer");
    }
}
