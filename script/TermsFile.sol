// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {SignedApproval, Terms} from "../contracts/IDstackApp.sol";
import {Acting} from "./Acting.sol";

/// @title Files of `cohort terms` and `cohort approve --sign-only`: every key there, none other, no value rounded.
abstract contract TermsFile is Acting {
    string private constant APPROVAL_FORMAT = "cohort-approval/1";
    uint256 private constant EPSILON_PLACES = 9;

    function _terms(string memory path) internal view returns (Terms memory) {
        return _termsAt(_json(path), "", path);
    }

    /// One owner's signature and the terms it is for; refused when made for another chain or contract.
    function _approval(string memory path, address app) internal view returns (Terms memory, SignedApproval memory) {
        string memory json = _json(path);
        string[7] memory known = ["format", "chain_id", "app", "terms", "owner", "deadline", "signature"];
        string[] memory keys = new string[](7);
        for (uint256 i = 0; i < 7; ++i) {
            keys[i] = known[i];
        }
        _requireKeys(json, "", keys, path);
        if (keccak256(bytes(vm.parseJsonString(json, ".format"))) != keccak256(bytes(APPROVAL_FORMAT))) {
            revert Unusable(
                string.concat(path, " has another format than ", APPROVAL_FORMAT),
                "use a file of cohort approve --sign-only of this version"
            );
        }
        if (vm.parseJsonUint(json, ".chain_id") != block.chainid || vm.parseJsonAddress(json, ".app") != app) {
            revert Unusable(
                string.concat(path, " is for another chain or contract"),
                "an approval is good for one chain and one contract"
            );
        }
        SignedApproval memory approval = SignedApproval({
            owner: vm.parseJsonAddress(json, ".owner"),
            deadline: uint64(_uint(json, ".deadline", type(uint64).max)),
            signature: vm.parseJsonBytes(json, ".signature")
        });
        return (_termsAt(json, ".terms", path), approval);
    }

    // ---- private ------------------------------------------------------------------------------------------------

    function _termsAt(string memory json, string memory at, string memory path) private view returns (Terms memory t) {
        _requireKeys(json, at, _termsKeys(), path);
        t.composeHash = _word(json, string.concat(at, ".compose_hash"), path);
        t.recipeHash = _word(json, string.concat(at, ".recipe_hash"), path);
        t.outputSchemaHash = _word(json, string.concat(at, ".output_schema_hash"), path);
        t.epsilonPerRun = _decimal(json, string.concat(at, ".epsilon_per_run"), EPSILON_PLACES, path);
        t.deltaPerRun = _decimal(json, string.concat(at, ".delta_per_run"), 0, path);
        t.epsilonBudget = _decimal(json, string.concat(at, ".epsilon_budget"), EPSILON_PLACES, path);
        t.deltaBudget = _decimal(json, string.concat(at, ".delta_budget"), 0, path);
        t.expiry = uint64(_whole(json, string.concat(at, ".expiry"), type(uint64).max, path));
        t.devices = _word(json, string.concat(at, ".devices"), path);
        t.systems = _word(json, string.concat(at, ".systems"), path);
        t.era = uint32(_whole(json, string.concat(at, ".era"), type(uint32).max, path));
        t.round = uint32(_whole(json, string.concat(at, ".round"), type(uint32).max, path));
    }

    function _termsKeys() private pure returns (string[] memory keys) {
        string[12] memory known = [
            "compose_hash",
            "recipe_hash",
            "output_schema_hash",
            "epsilon_per_run",
            "delta_per_run",
            "epsilon_budget",
            "delta_budget",
            "expiry",
            "devices",
            "systems",
            "era",
            "round"
        ];
        keys = new string[](known.length);
        for (uint256 i = 0; i < known.length; ++i) {
            keys[i] = known[i];
        }
    }

    function _json(string memory path) internal view returns (string memory json) {
        try vm.readFile(path) returns (string memory text) {
            json = text;
        } catch {
            revert Unusable(string.concat("cannot read ", path), "check the path");
        }
        try vm.parseJsonKeys(json, "$") returns (string[] memory) {}
        catch {
            revert Unusable(string.concat(path, " is not a JSON object"), "give the file as cohort wrote it");
        }
    }

    /// All of `keys` are there and nothing else is: an unknown key may be a newer version's condition.
    function _requireKeys(string memory json, string memory at, string[] memory keys, string memory path) private view {
        for (uint256 i = 0; i < keys.length; ++i) {
            if (vm.keyExistsJson(json, string.concat(at, ".", keys[i]))) continue;
            revert Unusable(string.concat(path, " has no ", at, ".", keys[i]), "make it afresh with cohort");
        }
        string[] memory have = vm.parseJsonKeys(json, bytes(at).length == 0 ? "$" : at);
        for (uint256 i = 0; i < have.length; ++i) {
            bool known = false;
            for (uint256 k = 0; k < keys.length && !known; ++k) {
                known = keccak256(bytes(have[i])) == keccak256(bytes(keys[k]));
            }
            if (!known) {
                revert Unusable(
                    string.concat(path, " has an unknown key ", at, ".", have[i]), "use the scripts of the same version"
                );
            }
        }
    }

    function _word(string memory json, string memory key, string memory path) internal pure returns (bytes32) {
        string memory text = _quoted(json, key, path);
        try vm.parseBytes32(text) returns (bytes32 value) {
            if (bytes(text).length == 66) return value;
        } catch {}
        revert Unusable(string.concat(path, ": ", key, " must be 32 bytes in 0x hex"), "make it afresh with cohort");
    }

    /// A decimal in a string, exact: at most `places` digits after the point, none rounded.
    function _decimal(string memory json, string memory key, uint256 places, string memory path)
        private
        pure
        returns (uint64)
    {
        bytes memory text = bytes(_quoted(json, key, path));
        uint256 value = 0;
        uint256 digits = 0;
        uint256 decimals = 0;
        bool point = false;
        bool ok = true;
        for (uint256 i = 0; ok && i < text.length; ++i) {
            if (text[i] == "." && !point && digits != 0 && places != 0) {
                point = true;
                continue;
            }
            ok = text[i] >= "0" && text[i] <= "9" && decimals < (point ? places : 1) && value <= type(uint64).max;
            value = value * 10 + (uint8(text[i]) - (ok ? 48 : uint8(text[i])));
            ++digits;
            if (point) ++decimals;
        }
        ok = ok && digits != 0 && point == (decimals != 0);
        for (; ok && decimals < places; ++decimals) {
            value *= 10;
        }
        if (!ok || value > type(uint64).max) {
            revert Unusable(
                string.concat(
                    path, ": ", key, " must be a decimal string with at most ", vm.toString(places), " places"
                ),
                "make it afresh with cohort"
            );
        }
        return uint64(value);
    }

    function _whole(string memory json, string memory key, uint256 max, string memory path)
        internal
        pure
        returns (uint256 value)
    {
        try vm.parseJsonUint(json, key) returns (uint256 parsed) {
            value = parsed;
        } catch {
            revert Unusable(string.concat(path, ": ", key, " must be a whole number"), "make it afresh with cohort");
        }
        if (value > max) {
            revert Unusable(
                string.concat(path, ": ", key, " is more than ", vm.toString(max)), "make it afresh with cohort"
            );
        }
    }

    function _quoted(string memory json, string memory key, string memory path) private pure returns (string memory) {
        try vm.parseJsonString(json, key) returns (string memory text) {
            return text;
        } catch {
            revert Unusable(string.concat(path, ": ", key, " must be a string"), "make it afresh with cohort");
        }
    }
}
