// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Script} from "forge-std/Script.sol";
import {VmSafe} from "forge-std/Vm.sol";

/// @title Reading of the deploy scripts' JSON inputs. Formats: script/README.md.
abstract contract Inputs is Script {
    error Input_Missing(string key);
    error Input_NotAscii32(string key, string value);
    error Input_NotCountryCode(string value);
    error Input_UnknownGrade(string value);
    error Input_OutOfRange(string key, uint256 value, uint256 max);
    error Input_NoContract(string key, address value);

    function _address(string memory json, string memory key) internal view returns (address) {
        _requireKey(json, key);
        return vm.parseJsonAddress(json, key);
    }

    function _addressOr(string memory json, string memory key, address fallback_) internal view returns (address) {
        return vm.keyExistsJson(json, key) ? vm.parseJsonAddress(json, key) : fallback_;
    }

    function _bytes(string memory json, string memory key) internal view returns (bytes memory) {
        _requireKey(json, key);
        return vm.parseJsonBytes(json, key);
    }

    function _string(string memory json, string memory key) internal view returns (string memory) {
        _requireKey(json, key);
        return vm.parseJsonString(json, key);
    }

    /// A JSON number or a decimal string.
    function _uint(string memory json, string memory key, uint256 max) internal view returns (uint256 value) {
        _requireKey(json, key);
        value = vm.parseJsonUint(json, key);
        if (value > max) revert Input_OutOfRange(key, value, max);
    }

    function _hashes(string memory json, string memory key) internal view returns (bytes32[] memory) {
        return vm.keyExistsJson(json, key) ? vm.parseJsonBytes32Array(json, key) : new bytes32[](0);
    }

    function _addresses(string memory json, string memory key) internal view returns (address[] memory) {
        return vm.keyExistsJson(json, key) ? vm.parseJsonAddressArray(json, key) : new address[](0);
    }

    /// Printable ASCII of 1 to 32 characters, left-aligned.
    function _label(string memory json, string memory key) internal view returns (bytes32) {
        return _labelOf(key, _string(json, key));
    }

    function _labelOf(string memory name, string memory text) internal pure returns (bytes32) {
        bytes memory raw = bytes(text);
        bool ok = raw.length > 0 && raw.length <= 32;
        for (uint256 i = 0; ok && i < raw.length; ++i) {
            ok = raw[i] >= 0x20 && raw[i] < 0x7f;
        }
        if (!ok) revert Input_NotAscii32(name, text);
        return bytes32(raw);
    }

    /// ISO 3166-1 alpha-2.
    function _country(string memory json, string memory key) internal view returns (bytes2) {
        string memory text = _string(json, key);
        bytes memory raw = bytes(text);
        if (raw.length != 2 || raw[0] < "A" || raw[0] > "Z" || raw[1] < "A" || raw[1] > "Z") {
            revert Input_NotCountryCode(text);
        }
        return bytes2(raw);
    }

    /// Names of compliance grades to the bits of `OwnerInfo.grades`.
    function _grades(string memory json, string memory key) internal view returns (uint16 bits) {
        if (!vm.keyExistsJson(json, key)) return 0;
        string[] memory names = vm.parseJsonStringArray(json, key);
        string[6] memory known = ["HIPAA", "GDPR", "UK-GDPR", "PCI", "SOC2", "FFIEC"];
        for (uint256 i = 0; i < names.length; ++i) {
            uint256 bit = 0;
            while (bit < known.length && keccak256(bytes(known[bit])) != keccak256(bytes(names[i]))) ++bit;
            if (bit == known.length) revert Input_UnknownGrade(names[i]);
            bits |= uint16(1 << bit);
        }
    }

    /// Makes the folder where it is missing. A dry run writes nothing: what it would describe does not exist.
    function _write(string memory json, string memory path) internal {
        if (vm.isContext(VmSafe.ForgeContext.ScriptDryRun)) return;
        bytes memory raw = bytes(path);
        uint256 end = raw.length;
        while (end > 0 && raw[end - 1] != "/") --end;
        bytes memory folder = new bytes(end);
        for (uint256 i = 0; i < end; ++i) {
            folder[i] = raw[i];
        }
        if (end > 0) vm.createDir(string(folder), true);
        vm.writeJson(json, path);
    }

    function _requireKey(string memory json, string memory key) private view {
        if (!vm.keyExistsJson(json, key)) revert Input_Missing(key);
    }
}
