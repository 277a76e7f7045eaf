// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {DstackAppFactory} from "../../contracts/DstackAppFactory.sol";
import {IDstackKms} from "../../contracts/IDstackKms.sol";
import {BaseTest} from "../BaseTest.sol";
import {IApp} from "../utils/IApp.sol";

contract Deaf {
    function registerApp(address) external {}

    function registeredApps(address) external pure returns (bool) {
        return false;
    }
}

contract DstackAppFactoryTest is BaseTest {
    DstackAppFactory private factory;
    IDstackKms private registry;
    bytes private code;
    bytes private arguments;

    function setUp() public override {
        super.setUp();
        code = vm.getCode("DstackApp.sol:DstackApp");
        factory = new DstackAppFactory(keccak256(code));
        registry = IDstackKms(vm.deployCode("DstackKms.sol:DstackKms", abi.encode(address(this))));
        arguments = abi.encode(bytes32("cardio"), bytes32("health"), _founders(), 3, kmsRoot.addr, _analysts(), DELAY);
    }

    function test_Deploy_RevertWhen_TheCodeIsAnother() public {
        bytes memory other = code;
        other[100] ^= 0x01;
        vm.expectRevert(
            abi.encodeWithSelector(
                DstackAppFactory.DstackAppFactory_WrongCode.selector, keccak256(other), keccak256(code)
            )
        );
        factory.deploy(other, arguments, "salt", address(registry));
        vm.expectRevert();
        factory.addressOf(other, arguments, "salt");
    }

    function test_Deploy_RevertWhen_TheFoundingIsRefused() public {
        arguments = abi.encode(bytes32("cardio"), bytes32("health"), _founders(), 5, kmsRoot.addr, _analysts(), DELAY);
        vm.expectRevert(_invalid("threshold"));
        factory.deploy(code, arguments, "salt", address(registry));
    }

    function test_Deploy_RevertWhen_TheRegistryDoesNotRegister() public {
        address at = factory.addressOf(code, arguments, "salt");
        bytes4 refused = DstackAppFactory.DstackAppFactory_NotRegistered.selector;
        vm.expectRevert(abi.encodeWithSelector(refused, stranger.addr, at));
        factory.deploy(code, arguments, "salt", stranger.addr);
        address deaf = address(new Deaf());
        vm.expectRevert(abi.encodeWithSelector(refused, deaf, at));
        factory.deploy(code, arguments, "salt", deaf);
        assertEq(at.code.length, 0);
    }

    function test_Deploy_CreatesFoundsAndRegisters() public {
        address at = factory.addressOf(code, arguments, "salt");
        vm.expectEmit(address(factory));
        emit DstackAppFactory.AppDeployed(at, address(registry), "salt", keccak256(arguments));
        vm.prank(stranger.addr);
        assertEq(factory.deploy(code, arguments, "salt", address(registry)), at);
        assertTrue(registry.registeredApps(at));
        // The same code as one deployed in any other way, and the founding that was asked for.
        assertEq(at.codehash, address(app).codehash);
        (uint128 active, uint8 threshold,,,,) = IApp(at).config();
        assertEq(active, 15);
        assertEq(threshold, 3);
        assertEq(IApp(at).kmsRoot(), kmsRoot.addr);
        assertEq(IApp(at).owner(), at);
    }

    /// Whoever is first creates what the later one asks for; with another founding it is another address.
    function test_Deploy_BeingFirstGainsNothing() public {
        vm.prank(stranger.addr);
        address first = factory.deploy(code, arguments, "salt", address(0));
        assertFalse(registry.registeredApps(first));
        assertEq(factory.deploy(code, arguments, "salt", address(registry)), first);
        assertTrue(registry.registeredApps(first));

        bytes memory others =
            abi.encode(bytes32("cardio"), bytes32("health"), _founders(), 1, kmsRoot.addr, _analysts(), DELAY);
        assertNotEq(factory.deploy(code, others, "salt", address(0)), first);
        assertNotEq(factory.deploy(code, arguments, "other salt", address(0)), first);
    }
}
