"""The package as pip installed it: both names, typed, and what the product page imports."""

import importlib.metadata
import inspect
import typing

import cohort
import phala
import phala.dstack


def test_pip_installed_it_with_its_types():
    files = {str(path) for path in importlib.metadata.files("cohort-sdk")}
    assert {"cohort/py.typed", "phala/py.typed", "phala/dstack/py.typed", "phala/dstack/__init__.py"} <= files
    assert importlib.metadata.metadata("cohort-sdk")["Requires-Dist"].startswith("pyarrow")


def test_both_names_are_the_same_functions():
    assert phala.dstack.unwrap is cohort.unwrap is phala.dstack.unwrap_dataset is phala.unwrap
    assert phala.dstack.emit_signed is cohort.emit_signed is phala.emit_signed


def test_everything_public_is_documented_and_typed():
    for name in cohort.__all__:
        member = getattr(cohort, name)
        assert inspect.getdoc(member), name
        if inspect.isfunction(member):
            hints = set(inspect.signature(member).parameters) | {"return"}
            annotated = set(inspect.get_annotations(member))
            assert hints <= annotated, (name, hints - annotated)
    assert len(typing.get_overloads(cohort.unwrap)) == 2
