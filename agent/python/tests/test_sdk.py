"""The SDK on its own: names, shapes and refusals, without an agent."""

import io

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from cohort import EmitError, NotInRunError, UnknownDatasetError, _run, emit_signed, owners, unwrap


@pytest.fixture
def run():
    tables = {name: pa.table({"id": ["p", "q"], "v": [1, None]}) for name in ("hospital-A", "hospital-B", "lab")}
    run = _run.Run(epsilon="1.5", measures={"x": [], "w": ["a", "b"]}, tables=tables)
    _run.begin(run)
    yield run
    _run._current = None


def test_outside_of_a_run_there_is_a_next_step():
    with pytest.raises(NotInRunError, match="cohort recipe rehearse"):
        unwrap("hospital-A")


def test_a_path_names_an_owner(run):
    assert owners() == ["hospital-A", "hospital-B", "lab"]
    for path in ("hospital-A", "hospital-A/cohort.tar", "A/cohort.tar", "./A/cohort.tar", "hospital-A.tar"):
        assert unwrap(path, into="arrow") is run.tables["hospital-A"]
    assert isinstance(unwrap("lab"), pd.DataFrame)
    for path in ("C/cohort.tar", "", "hospital", "../lab"):
        with pytest.raises(UnknownDatasetError):
            unwrap(path)


@pytest.mark.parametrize(
    "result",
    [
        {"x": 1, "w": [2, 3]},
        {"w": {"b": 3, "a": 2}, "x": np.float32(1)},
        {"x": np.array([1]), "w": np.array([[2], [3]])},
        {"x": pd.Series([1]), "w": pd.Series({"b": 3, "a": 2})},
        {"x": pa.array([1]), "w": pa.array([2, 3])},
    ],
)
def test_results_of_many_forms(run, result):
    emit_signed(result, epsilon=1.5)
    assert run.emitted == {"x": [1.0], "w": [2.0, 3.0]}


def test_what_is_no_number_is_none(run):
    emit_signed({"x": float("nan"), "w": [None, float("inf")]})
    assert run.emitted == {"x": [None], "w": [None, None]}


def test_a_model_file(run):
    file = io.BytesIO()
    np.savez(file, x=np.float64(1), w=np.array([2, 3], dtype=np.int32))
    emit_signed(file)
    assert run.emitted == {"x": [1.0], "w": [2.0, 3.0]}


def test_a_safetensors_file(run):
    body = np.array([1.0], dtype="<f4").tobytes() + np.array([2, 3], dtype="<i8").tobytes()
    header = (
        b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"w":{"dtype":"I64","shape":[2],"data_offsets":[4,20]}}'
    )
    emit_signed(len(header).to_bytes(8, "little") + header + body)
    assert run.emitted == {"x": [1.0], "w": [2.0, 3.0]}


def test_a_fitted_linear_model(run):
    class Model:
        coef_ = np.array([[3.0]])
        intercept_ = np.array([2.0])

    run.measures = {"coefficients": ["intercept", "age"]}
    emit_signed(Model())
    assert run.emitted == {"coefficients": [2.0, 3.0]}


@pytest.mark.parametrize(
    "result", [{"x": 1}, {"x": 1, "w": [1, 2], "more": 3}, {"x": 1, "w": [1]}, {"x": 1, "w": {"a": 1, "c": 2}}, b"no model"]
)
def test_what_the_recipe_does_not_declare_is_refused(run, result):
    with pytest.raises(EmitError):
        emit_signed(result)


def test_once_and_at_the_approved_epsilon(run):
    with pytest.raises(EmitError, match="approved epsilon 1.5"):
        emit_signed({"x": 1, "w": [1, 2]}, epsilon=2)
    emit_signed({"x": 1, "w": [1, 2]}, epsilon="1.50")
    with pytest.raises(EmitError, match="once"):
        emit_signed({"x": 1, "w": [1, 2]})
