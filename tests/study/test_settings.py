"""A user's own basis is the claim, and its side that of the projection."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from safety_spaces.study import OwnBasis, Projection, Study, load_study

SCORED = [{"task": "useful", "scheme": "parallel", "metrics": ["utility"]}]


def test_without_a_basis_of_ones_own_top_k_is_the_claim(write_study: Callable[[str], Path]) -> None:
    projection = load_study(write_study("projection: {side: residual}")).projection
    assert (projection.claim, projection.side) == ("top_k", "residual")


def test_a_basis_of_ones_own_is_the_claim_and_survives_json(write_study: Callable[[str], Path]) -> None:
    lines = "projection: {basis: {file: U.safetensors, side: right}, side: right, bases: [file, random, top_k]}"
    study = load_study(write_study(lines))
    assert study.projection.basis == OwnBasis(file="U.safetensors", side="right")
    assert (study.projection.claim, study.projection.side) == ("file", "right")
    assert Study.model_validate(json.loads(study.model_dump_json())) == study


def test_a_side_that_nobody_sets_is_that_of_the_basis() -> None:
    own = {"basis": {"file": "U.safetensors", "side": "residual"}, "bases": ["file", "random"], "scored": SCORED}
    projection = Projection.model_validate(own)
    assert projection.side == "residual"
    assert Projection.model_validate(json.loads(projection.model_dump_json())) == projection
    with pytest.raises(ValidationError, match="write side: residual"):
        Projection.model_validate({**own, "side": "left"})
