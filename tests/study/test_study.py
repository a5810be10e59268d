"""The schema explains itself, cannot be changed, and knows who descends from whom."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from safety_spaces.errors import UserError
from safety_spaces.study import FineTuned, Pretrained, Study, Training, load_study, part_of
from safety_spaces.study.fields import Settings


def all_sections(section: type[Settings] = Settings) -> list[type[Settings]]:
    return [known for child in section.__subclasses__() for known in (child, *all_sections(child))]


@pytest.mark.parametrize("section", all_sections(), ids=lambda section: section.__name__)
def test_every_field_has_one_sentence(section: type[Settings]) -> None:
    assert section.model_config["extra"] == "forbid"
    assert section.model_config["frozen"]
    for name, field in section.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name
        assert len(field.description.split()) >= 3, name


def test_all_sections_are_found() -> None:
    assert {Study, Training, FineTuned, Pretrained} < set(all_sections())


def test_a_study_is_frozen(write_study: Callable[[str], Path]) -> None:
    study = load_study(write_study(""))
    with pytest.raises(ValidationError, match="frozen"):
        study.threads = 3


def test_the_defaults_of_training_are_table_3() -> None:
    training = Training()
    assert (training.batch_size, training.max_length, training.accumulation, training.epochs) == (1, 512, 32, 1)
    assert (training.learning_rate, training.schedule, training.warmup) == (1e-5, "cosine", 0.02)


def test_a_role_overrides_the_training_of_the_study(write_study: Callable[[str], Path]) -> None:
    lines = "training: {epochs: 3, warmup: 0.5}\nroles: {harmful: {training: {epochs: 7}}}"
    study = load_study(write_study(lines))
    assert study.training_of("useful") == study.training
    assert study.training_of("harmful") == study.training.model_copy(update={"epochs": 7})
    assert study.training.epochs == 3


def test_a_given_role_has_no_training(write_study: Callable[[str], Path]) -> None:
    study = load_study(write_study("roles: {base: !replace {path: hub/model}}"))
    assert set(study.given_roles) == {"base"}
    assert (study.parent("base"), study.architecture) == (None, None)
    with pytest.raises(KeyError, match="base"):
        study.training_of("base")


def test_parents_come_first_whatever_the_order_of_the_file(write_study: Callable[[str], Path]) -> None:
    lines = """
roles: !replace
  second: {from: first, method: sft, corpus: useful}
  first: {from: reference, method: sft, corpus: useful}
  useful: {from: reference, method: sft, corpus: useful}
  harmful: {from: reference, method: sft, corpus: harmful}
  contaminated: {from: reference, method: sft, corpus: contaminated}
  reference: {from: base, method: sft, corpus: alignment}
  base: {path: folder/model}
"""
    study = load_study(write_study(lines))
    order = study.order_of_roles()
    assert order == ("base", "reference", "first", "useful", "harmful", "contaminated", "second")
    assert study.lineage("second") == ("base", "reference", "first", "second")
    assert study.tasks == ("first", "useful", "harmful", "contaminated")
    assert [role for role in order if not study.is_per_seed(role)] == ["base"]


def weights_alone(write_study: Callable[[str], Path], **more: str) -> Path:
    lines = {"activation_spaces": "null", "evaluation": "null", "projection": "{scored: []}", **more}
    return write_study("".join(f"{key}: {value}\n" for key, value in lines.items()))


def test_a_study_of_weights_alone_asks_nothing(write_study: Callable[[str], Path]) -> None:
    study = load_study(weights_alone(write_study))
    assert (study.projection.scored, study.activation_spaces, study.evaluation) == ((), None, None)
    assert Study.model_validate(json.loads(study.model_dump_json())) == study


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("projection", "{side: left}", "evaluation.utility: missing, though projection.scored.0 asks for it"),
        ("activation_spaces", "{prompts: 3}", "evaluation: missing, though activation_spaces asks models"),
    ],
)
def test_what_asks_models_needs_an_evaluation(
    write_study: Callable[[str], Path], key: str, value: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        load_study(weights_alone(write_study, **{key: value}))


def test_pairs_of_updates_follow_from_the_roles(write_study: Callable[[str], Path]) -> None:
    study = load_study(write_study("update_spaces: {pairs: null}"))
    assert study.update_pairs == (
        ("useful", "harmful"), ("useful", "contaminated"), ("useful", "reference"),
        ("harmful", "contaminated"), ("harmful", "reference"), ("contaminated", "reference"),
    )  # fmt: skip
    assert load_study(write_study("update_spaces: null")).update_pairs == ()


def test_roles_and_corpora_by_how_they_come_to_be(write_study: Callable[[str], Path]) -> None:
    study = load_study(write_study("roles: {useful: !replace {path: somewhere}}"))
    assert set(study.trained_roles) == {"base", "reference", "harmful", "contaminated"}
    assert set(study.given_roles) == {"useful"}
    assert [recipe.beta for recipe in study.trained_roles.values()] == [None] * 4
    assert study.trained_roles["base"].architecture == study.architecture
    assert study.trained_roles["harmful"].architecture is None
    assert set(study.mixed_corpora) == {"contaminated"}
    assert study.mixed_corpora["contaminated"].parts == ("useful", "harmful")
    assert set(study.single_corpora) == {"pretraining", "alignment", "useful", "harmful"}


def test_prompts_are_put_in_the_template_of_training_or_in_none(write_study: Callable[[str], Path]) -> None:
    assert load_study(write_study("training: {template: plain}")).prompt_template == "plain"
    assert load_study(write_study("evaluation: {template: none}")).prompt_template == "none"


def test_training_settings_may_all_be_left_out(write_study: Callable[[str], Path]) -> None:
    content = load_study(write_study("")).model_dump()
    del content["training"]
    for role in ("base", "useful"):
        del content["roles"][role]["training"]
    assert Study.model_validate(content).training_of("useful") == Training()


@pytest.mark.parametrize(
    ("fraction", "count", "layer"), [(0.7, 10, 7), (0.29, 100, 29), (0.85, 28, 23), (0.57, 100, 57)]
)
def test_part_of_is_exact_in_decimals(fraction: float, count: int, layer: int) -> None:
    assert part_of(fraction, count) == layer
