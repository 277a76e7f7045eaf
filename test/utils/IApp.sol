// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IERC5267} from "@openzeppelin/contracts/interfaces/IERC5267.sol";
import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";

import {IDstackApp} from "../../contracts/IDstackApp.sol";

/// All that a DstackApp answers to. Tests know it by this alone and load its code from the build, so that a change of the
/// contract (or a mutant of it) does not recompile the tests.
interface IApp is IDstackApp, IERC165, IERC5267 {}
