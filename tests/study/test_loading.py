"""Extending, and the one line that a user reads about each mistake."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from safety_spaces.errors import UserError
from safety_spaces.study import Existing, SingleCorpus, Study, TokenWindow, load_study, study_files

CONFIGS = Path(__file__).parents[2] / "configs"
MINIATURE = CONFIGS / "miniature.yaml"


SERVICE = "kind: service, price: {input: 0, output: 0}, budget: 1"
STUDIES = sorted(path.stem for path in CONFIGS.glob("*.yaml") if path.stem not in ("paper", "verdict", "fsdp"))
"""All but what studies extend, and a launcher's file."""


@pytest.mark.parametrize("name", STUDIES)
def test_committed_studies_load_and_survive_json(name: str) -> None:
    study = load_study(CONFIGS / f"{name}.yaml")
    assert study.name == name
    assert Study.model_validate(json.loads(study.model_dump_json())) == study


def test_as_published_sets_every_deviation_and_nothing_else() -> None:
    corrected, published = (load_study(CONFIGS / f"{name}.yaml") for name in ("miniature", "miniature-as-published"))
    first, second = (_leaves(study.model_dump(mode="json")) for study in (corrected, published))
    changed = {key: second[key] for key in second if first.get(key) != second[key] and not key.startswith("roles.")}
    assert changed == {
        "name": "miniature-as-published",
        "training.weight_decay": 0.01,
        "training.precision": "bf16",
        "corpora.contaminated.mixing": "add",
        "projection.rounding": "round",
        "projection.weights_dtype": "float16",
        "projection.tied": "twice",
        "activation_spaces.positions": ["last_column"],
        "activation_spaces.toxigen": "unfiltered",
        "evaluation.template": "none",
        "evaluation.harmfulness.prompts": "published",
        "evaluation.harmfulness.judge.temperature": None,
    }


def _leaves(content: object, prefix: str = "") -> dict[str, object]:
    if not isinstance(content, dict):
        return {prefix: content}
    return {
        key: leaf for name in content for key, leaf in _leaves(content[name], f"{prefix}.{name}".lstrip(".")).items()
    }


def test_the_papers_learning_rate_is_a_number(write_study: Callable[[str], Path]) -> None:
    study = load_study(write_study("training: {learning_rate: 1e-5}"))
    assert study.training.learning_rate == 0.00001


def test_a_role_named_no_stays_text(write_study: Callable[[str], Path]) -> None:
    study = load_study(write_study("roles: {no: {from: reference, method: sft, corpus: useful}}"))
    assert study.tasks == ("useful", "harmful", "contaminated", "no")


def test_mappings_merge_and_lists_are_replaced(write_study: Callable[[str], Path]) -> None:
    study = load_study(write_study("seeds: [5]\nevaluation: {harmfulness: {judge: {temperature: 0.5}}}"))
    assert study.seeds == (5,)
    assert (study.evaluation.harmfulness.judge.name, study.evaluation.harmfulness.judge.temperature) == ("rubric", 0.5)
    assert study.evaluation.utility == load_study(CONFIGS / "miniature.yaml").evaluation.utility


def test_replace_takes_a_mapping_whole(write_study: Callable[[str], Path]) -> None:
    lines = "roles: {base: !replace {path: somewhere}}\ncorpora: {harmful: !replace {dataset: other}}"
    study = load_study(write_study(lines))
    assert study.roles["base"] == Existing(path="somewhere")
    assert study.corpora["harmful"] == SingleCorpus(dataset="other")


def test_study_files_are_the_chain(write_study: Callable[[str], Path]) -> None:
    path = write_study("")
    grandchild = path.with_name("grandchild.yaml")
    grandchild.write_text("extends: study.yaml\nname: grandchild")
    assert study_files(grandchild) == (grandchild, path, CONFIGS / "miniature.yaml")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("training: {learning_rat: 1}", "training.learning_rat: unknown key; did you mean learning_rate?"),
        ("roles: {useful: {corpu: a}}", "roles.useful.corpu: unknown key; did you mean corpus?"),
        ("zzzz: 1", "zzzz: unknown key; expected one of activation_spaces, corpora"),
        ("training: {learning_rate: fast}", "training.learning_rate: expected a valid number, got 'fast'"),
        ("training: 3", "training: expected a mapping of keys to values, got 3"),
        ("roles: {useful: {training: {epochs: 1.5}}}", "roles.useful.training.epochs: expected a valid integer"),
        ("roles: 7", "roles: expected a mapping of keys to values, got 7"),
        ("threads: '2'", "threads: expected a valid integer, got '2'"),
        ("model: null", "model: expected a valid string, got None"),
        ("seeds: 4", "seeds: expected a list, got 4"),
        ("seeds: []", "seeds: expected at least 1 item, got []"),
        ("seeds: [0, 1, 0]", "seeds: expected no entry twice, got [0, 1, 0]"),
        ("seeds: [-1]", "seeds.0: expected greater than or equal to 0, got -1"),
        ("name: .hidden", "name: expected letters, digits, -, _ and, not in the first place, dots, got '.hidden'"),
        ("name: a/b", "name: expected letters, digits, -, _ and, not in the first place, dots, got 'a/b'"),
        ("name: judge", "name: expected another name than judge"),
        (f"name: {'a' * 101}", "name: expected at most 100 characters"),
        ("roles: {base: !replace {path: 'https://huggingface.co/gpt2'}}",
         "roles.base.path: expected a folder or an id of the hub such as owner/model, no address"),
        ("roles: {base: !replace {path: hf.co/owner/model}}", "roles.base.path: expected a folder or an id of the hub"),
        ("projection: {fractions: [0, 0.5]}", "projection.fractions.0: expected greater than 0, got 0"),
        ("projection: {fractions: [0.5, 1.5]}", "projection.fractions.1: expected less than or equal to 1, got 1.5"),
        ("projection: {fractions: [0.5, 0.25]}", "projection.fractions: expected numbers that increase"),
        ("projection: {fractions: [0.5, 0.5]}", "projection.fractions: expected numbers that increase"),
        ("projection: {fractions: [0.5, 0.50000001]}", "projection.fractions: expected numbers that increase"),
        ("projection: {side: top}", "projection.side: expected 'left', 'right' or 'residual', got 'top'"),
        ("projection: {basis: {file: U.safetensors}}",
         "projection.bases: expected file first, the basis under test; write bases: [file, random_k, random]"),
        ("projection: {basis: {file: U.safetensors}, bases: [random, file]}", "projection.bases: expected file first"),
        ("projection: {bases: [file, random]}",
         "projection.basis: missing, though bases name file; write basis: {file: U.safetensors, side: left}"),
        ("projection: {basis: {file: U.safetensors, side: right}, bases: [file, random]}",
         "projection.side: expected right, the side of projection.basis, got left; write side: right"),
        ("projection: {basis: {file: ''}}", "projection.basis.file: expected at least 1 character, got ''"),
        ("projection: {score_draws: 6}", "projection.score_draws: expected at most energy_draws (5), got 6"),
        ("projection: {scored: [{task: x, scheme: parallel, metrics: [utility]}]}",
         "projection.scored.0.task: no task is named 'x'; expected one of contaminated, harmful, useful"),
        ("projection: {scored: [{task: base, scheme: parallel, metrics: [utility]}]}", "no task is named 'base'"),
        ("update_spaces: {etas: [0.5, 2.0]}", "update_spaces.etas.1: expected less than or equal to 1"),
        ("update_spaces: {pairs: [[useful, harmfull]]}",
         "update_spaces.pairs.0: no update is named 'harmfull'; did you mean harmful?"),
        ("update_spaces: {pairs: [[useful, useful]]}", "update_spaces.pairs.0: expected no entry twice"),
        ("projection: {scored: [{task: useful, scheme: parallel, metrics: [utility], layers: []}]}",
         "projection.scored.0.layers: expected at least 1 item"),
        ("projection: {scored: [{task: useful, scheme: parallel, metrics: [utility], layers: [1, -1]}]}",
         "projection.scored.0.layers.1: expected greater than or equal to 0, got -1"),
        ("projection: {scored: [{task: useful, scheme: parallel, metrics: [utility], layers: [2, 0, 2]}]}",
         "projection.scored.0.layers: expected no entry twice, got [2, 0, 2]"),
        ("projection: {scored: [{task: useful, scheme: parallel, metrics: [utility], layers: all}]}",
         "projection.scored.0.layers: expected a list, got 'all'"),
        ("projection: {scored: [{task: useful, scheme: parallel, metrics: [utility], others: [out]}]}",
         "projection.scored.0.others: expected with layers, and only with them: whole, out or both"),
        ("projection: {scored: [{task: useful, scheme: parallel, metrics: [utility]},"
         " {task: useful, scheme: parallel, metrics: [harmfulness, utility]}]}",
         "projection.scored: expected utility of useful, parallel, once, got it again; join the entries"),
        ("projection: {scored: [{task: useful, scheme: parallel, metrics: [utility], layers: [0], others: []}]}",
         "projection.scored.0.others: expected at least 1 item"),
        ("projection: {scored: [{task: useful, scheme: parallel, metrics: [utility], layers: [0], others: [in]}]}",
         "projection.scored.0.others.0: expected 'whole' or 'out', got 'in'"),
        ("projection: {scored: [{task: useful, scheme: parallel, metrics: [utility, utility]}]}",
         "projection.scored.0.metrics: expected no entry twice"),
        ("projection: {scored: [{task: useful, scheme: parallel, metrics: [fluency]}]}",
         "projection.scored.0.metrics.0: expected 'utility', 'harmfulness', 'general_ability', 'over_refusal', "
         "'utility_margin' or 'harm_margin'"),
        ("projection: {scored: [{task: useful, scheme: parallel, metrics: [utility, general_ability]}]}",
         "evaluation.general_ability: missing, though projection.scored.0 asks for it"),
        ("projection: {scored: [{task: harmful, scheme: parallel, metrics: [over_refusal]}]}",
         "evaluation.over_refusal: missing, though projection.scored.0 asks for it"),
        ("evaluation: {general_ability: {dataset: mmlu}}", "evaluation.general_ability.fewshot: missing; add it"),
        ("evaluation: {general_ability: {fewshot: 0, prompts: 0}}",
         "evaluation.general_ability.prompts: expected greater than or equal to 1, got 0"),
        ("evaluation: {over_refusal: {where: {label: safe}}}",
         "evaluation.over_refusal.max_new_tokens: missing; add it"),
        ("evaluation: {over_refusal: {max_new_tokens: 3, judge: {kind: oracle}}}",
         "evaluation.over_refusal.judge: expected a kind of judge: rubric, keywords, classifier or service"),
        ("activation_spaces: {positions: []}", "activation_spaces.positions: expected at least 1 item"),
        ("activation_spaces: {positions: [last_prompt_token, last_prompt_token]}",
         "activation_spaces.positions: expected no entry twice"),
        ("activation_spaces: {positions: [first_token]}",
         "activation_spaces.positions.0: expected 'last_prompt_token', 'last_generated_token' or 'last_column'"),
        ("activation_spaces: {position: last_column}",
         "activation_spaces.position: unknown key; did you mean positions?"),
        ("activation_spaces: {positions: [{of: prompt, start: 3, stop: 3, combine: stacked}]}",
         "activation_spaces.positions.0.stop: expected more than start (3), got 3"),
        ("activation_spaces: {positions: [{of: prompt, start: 5, stop: 2, combine: averaged}]}",
         "activation_spaces.positions.0.stop: expected more than start (5), got 2"),
        ("activation_spaces: {positions: [{of: prompt, start: -1, stop: 2, combine: averaged}]}",
         "activation_spaces.positions.0.start: expected greater than or equal to 0, got -1"),
        ("activation_spaces: {positions: [{of: prompt, stop: 2}]}",
         "activation_spaces.positions.0.combine: missing; add it"),
        ("activation_spaces: {positions: [{of: answer, stop: 2, combine: stacked}]}",
         "activation_spaces.positions.0.of: expected 'prompt' or 'generated', got 'answer'"),
        ("activation_spaces: {positions: [last_column, last_generated_token]}",
         "activation_spaces.positions: expected last_column without positions in the answer"),
        ("activation_spaces: {positions: [{of: generated, stop: 2, combine: stacked}, last_column]}",
         "give one of them a study of its own"),
        ("update_spaces: {pairs: []}", "update_spaces.pairs: expected at least 1 item"),
        ("update_spaces: 3", "update_spaces: expected a mapping of keys to values, got 3"),
        ("activation_spaces: {etas: []}", "activation_spaces.etas: expected at least 1 item"),
        ("activation_spaces: {window: [0.9, 0.65]}", "activation_spaces.window: expected numbers that increase"),
        ("activation_spaces: {checkpoints: [referense]}", "no role is named 'referense'; did you mean reference?"),
        ("activation_spaces: {sets: {useful: {where: {a: [1]}}}}",
         "activation_spaces.sets.useful.where.a: expected text, a number, true or false, got [1]"),
        ("roles: {useful: {from: aligned}}", "roles.useful.from: no role is named 'aligned'"),
        ("roles: {useful-1: {from: reference, method: sft, corpus: useful}}",
         "roles.useful-1: expected letters, digits and _, got 'useful-1'"),
        ("roles: {useful: {from: harmful}, harmful: {from: useful}}",
         "roles.useful.from: expected no circle, got useful from harmful from useful"),
        ("roles: {base: !replace {from: reference, method: sft, corpus: useful}}",
         "roles.base.from: expected a base that is pretrained or given by its path"),
        ("roles: !replace {base: {path: a}}", "roles.reference: missing; every study has a base and a reference"),
        ("roles: {useful: {path: a}}", "roles.useful: expected one of {path: ...}, {method: pretrain"),
        ("roles: {useful: !replace {path: a, from: base}}", "write !replace before a recipe that replaces"),
        ("roles: {useful: !replace {from: reference, method: sft}}", "roles.useful.corpus: missing; add it"),
        ("training: {optimizer: adamw_8bit, precision: bf16_kahan}",
         "training.optimizer: adamw_8bit steps weights in fp32, bf16, bf16_stochastic, got bf16_kahan"),
        ("corpora: {harmful: {disjoint_from: safe}}",
         "corpora.harmful.disjoint_from: no corpus of one data set is named 'safe'"),
        ("roles: {useful: !replace {path: lora, adapter_of: refernce}}",
         "roles.useful.adapter_of: no role is named 'refernce'; did you mean reference?"),
        ("roles: {useful: !replace {path: lora, adapter_of: harmful}}",
         "roles.useful.adapter_of: expected base or reference, got harmful"),
        ("roles: {reference: !replace {path: lora, adapter_of: reference}}",
         "roles.reference.adapter_of: expected base, got reference"),
        ("roles: {base: !replace {path: lora, adapter_of: reference}}",
         "roles.base.adapter_of: expected none, since a base is whole, got reference"),
        ("update_spaces: {pairs: [[useful, harmful, reference]]}", "pairs.0: expected at most 2 items, got ['useful'"),
        ("evaluation: {harmfulness: {judge: !replace {kind: oracle}}}",
         "evaluation.harmfulness.judge: expected a kind of judge: rubric, keywords, classifier or service"),
        ("evaluation: {harmfulness: {judge: !replace {kind: keywords, phrases: [no, ' ']}}}",
         "evaluation.harmfulness.judge.phrases.1: expected a text that is not blank, got ' '"),
        ("evaluation: {harmfulness: {judge: !replace {kind: service, price: {input: 0.15, output: 0.6}}}}",
         "evaluation.harmfulness.judge.budget: missing; add it"),
        ("evaluation: {generation: {stop_strings: ['']}}", "evaluation.generation.stop_strings.0: expected"),
        ("roles: {useful: {method: ppo}}", "roles.useful.method: expected 'sft' or 'dpo', got 'ppo'"),
        ("roles: {useful: {corpus: usefull}}",
         "roles.useful.corpus: no corpus is named 'usefull'; did you mean useful?"),
        ("roles: {base: {architecture: {hidden: 94}}}",
         "roles.base.architecture.hidden: expected an even multiple of heads (4), got 94"),
        ("roles: {base: {architecture: {key_value_heads: 3}}}", "expected a divisor of heads (4), got 3"),
        ("corpora: {useful: {useful: a}}", "corpora.useful: expected one of {dataset: ...} and {useful: corpus"),
        ("corpora: {contaminated: {useful: contaminated}}",
         "corpora.contaminated.useful: no corpus of one data set is named 'contaminated'"),
        ("corpora: {contaminated: {harmful: x}}",
         "corpora.contaminated.harmful: no corpus of one data set is named 'x'"),
        ("training: {template: chatt}", "training.template: expected 'plain', 'question', 'none' or 'chat', got 'cha"),
        ("training: {template: chat}",
         "training.template: expected plain, question or none, since a tokenizer made here has no chat template"),
        ("roles: {useful: {training: {template: chat}}}",
         "roles.useful.training.template: expected plain, question or none"),
        ("roles: {base: !replace {path: a}}\ntraining: {template: chat}", "training.template: expected plain"),
        ("world: {sizes: {trivia: 1}}", "missing or unknown: trivia"),
        ("world: {sizes: !replace {math: 3}}", "world.sizes: expected the corpora pretraining, alignment, "),
        ("corpora: {useful: {rows: 4900}}",
         "corpora.useful: expected at least 4,900 rows, got 4,800; ask for fewer in the study"),
        ("corpora: {contaminated: {harmful_share: 0.7}}", "corpora.contaminated: expected at least 1,400 rows, got 1"),
        ("projection: {bases: [top_k]}",
         "projection.bases: expected top_k and random, which the report holds against each other, got top_k; add ran"),
        ("projection: {bases: [random_k, random]}", "got random_k, random; add top_k"),
        ("projection: {basis: {file: U.safetensors}, bases: [file, random_k]}",
         "projection.bases: expected file and random, which the report holds against each other"),
        ("projection: {scored: [{task: useful, scheme: parallel, metrics: [utility], layers: [2, 6]}]}",
         "projection.scored: expected layers from 0 to 5, got 6; correct layers"),
        ("activation_spaces: {window: [0.1, 0.14]}",
         "activation_spaces.window: expected depths that hold one of the 7 states, got 0.1 to 0.14; widen it"),
        ("activation_spaces: {sets: {jailbreaks: {dataset: advbench}}}",
         "activation_spaces.sets: expected names like useful, harmful_1 and harmful_2, or refusal"),
        ("activation_spaces: {sets: !replace {useful: {dataset: math}, harmful_1: {dataset: toxigen}}}",
         "activation_spaces.sets: expected a useful set and two harmful ones, got useful, harmful_1; add them"),
        ("activation_spaces: {positions: [last_generated_token, {of: generated, stop: 41, combine: stacked}]}",
         "activation_spaces.positions: expected windows that stop by evaluation.harmfulness.max_new_tokens (40), where "
         "answers end, got stop: 41; lower it or ask for more tokens"),
        ("world: null",
         "evaluation.harmfulness.judge: expected keywords, classifier or service, got rubric, which knows the answers"),
        *((f"evaluation: {{harmfulness: {{judge: !replace {{{SERVICE}, base_url: '{address}'}}}}}}",
           "evaluation.harmfulness.judge.base_url: expected a base_url with http:// or https://, a host and a port up "
           f"to 65535, got {address}; correct it")
          for address in ("localhost:8000", "http://a:99999/v1", "https:///v1", "http://127.0.0.1:port/v1")),
        ("seeds: [1]\nseeds: [2]",
         "line 3: not YAML that a study is written in: expected every key once, got seeds twice"),
        ("seeds: [1", "not YAML that a study is written in"),
        ("name: \x07", "not YAML: unacceptable character"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_in_one_line(write_study: Callable[[str], Path], lines: str, message: str) -> None:
    path = write_study(lines)
    with pytest.raises(UserError) as caught:
        load_study(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_corpora_that_nobody_is_trained_on_may_be_of_any_size(write_study: Callable[[str], Path]) -> None:
    roles = "".join(f"  {role}: !replace {{path: a}}\n" for role in ("useful", "contaminated"))
    assert load_study(write_study(f"corpora: {{useful: {{rows: 9999}}}}\nroles:\n{roles}")).trained_corpora == {
        "pretraining", "alignment", "harmful"
    }  # fmt: skip


def test_all_mistakes_are_named_each_in_a_line(write_study: Callable[[str], Path]) -> None:
    """Settings that all trainings share are named once, and so is a list of which an entry is wrong."""
    path = write_study("""
seeds: [-1]
trainings: {}
training: {learning_rat: 1, epochs: 0}
roles: {useful: {method: ppo, corpu: useful, training: {warmup: 2}}}
projection: {sid: left, fractions: [0, 2], score_draws: 6}
""")
    with pytest.raises(UserError) as caught:
        load_study(path)
    begin = f"{path} extending {MINIATURE}: "
    assert str(caught.value).splitlines() == [
        f"{begin}{problem}"
        for problem in (
            "trainings: unknown key; did you mean training?",
            "seeds.0: expected greater than or equal to 0, got -1",
            "training.learning_rat: unknown key; did you mean learning_rate?",
            "training.epochs: expected greater than or equal to 1, got 0",
            "roles.useful.corpu: unknown key; did you mean corpus?",
            "roles.useful.method: expected 'sft' or 'dpo', got 'ppo'",
            "roles.useful.training.warmup: expected less than 1, got 2",
            "projection.sid: unknown key; did you mean side?",
            "projection.fractions.0: expected greater than 0, got 0",
            "projection.fractions.1: expected less than or equal to 1, got 2",
        )
    ]


def test_all_that_does_not_hold_between_sections_is_named(write_study: Callable[[str], Path]) -> None:
    path = write_study("""
corpora: {contaminated: {useful: usefull, harmful: x}}
roles: {useful: {from: harmful}, harmful: {from: useful}, contaminated: {corpus: y}}
activation_spaces: {positions: [last_generated_token, {of: generated, stop: 99, combine: stacked}]}
evaluation: {over_refusal: null}
projection: {scored: [{task: x, scheme: parallel, metrics: [over_refusal]}]}
""")
    with pytest.raises(UserError) as caught:
        load_study(path)
    assert [line.split(": ", 1)[1][:40] for line in caught.value.args] == [
        "corpora.contaminated.useful: no corpus o",
        "corpora.contaminated.harmful: no corpus ",
        "roles.contaminated.corpus: no corpus is ",
        "roles.useful.from: expected no circle, g",
        "evaluation.over_refusal: missing, though",
        "activation_spaces.positions: expected wi",
        "projection.scored.0.task: no task is nam",
    ]
    path = write_study("""
activation_spaces: {checkpoints: [usefull], window: [0.1, 0.14]}
projection: {scored: [{task: x, scheme: parallel, metrics: [utility], layers: [7]}]}
update_spaces: {pairs: [[y, useful]]}
""")
    with pytest.raises(UserError) as caught:
        load_study(path)
    assert [line.split(": ")[1] for line in caught.value.args] == [
        "projection.scored.0.task",
        "update_spaces.pairs.0",
        "activation_spaces.checkpoints.0",
        "projection.scored",
        "activation_spaces.window",
    ]


@pytest.mark.parametrize(
    ("lines", "keys"),
    [
        (
            "training: {epochs: 0}\nroles: {useful: {corpus: usefull}}\nevaluation: {batch_size: many}",
            ["training.epochs", "evaluation.batch_size", "roles.useful.corpus"],
        ),
        (
            "roles: {useful: {method: ppo}}\nactivation_spaces: {checkpoints: [usefull]}\nupdate_spaces: {etas: [2]}",
            ["roles.useful.method", "update_spaces.etas.0", "activation_spaces.checkpoints.0"],
        ),
        (
            "projection: {score_draws: 9}\nevaluation: null\nactivation_spaces: {window: [0.1, 0.14]}",
            ["projection.score_draws", "evaluation", "activation_spaces.window"],
        ),
        (
            "corpora: {useful: {rows: -1}}\nroles: {useful: {method: ppo}, harmful: {corpus: x}}\n"
            "training: {template: chat}",
            ["corpora.useful.rows", "roles.useful.method", "roles.harmful.corpus", "training.template"],
        ),
        ("roles: 7\nname: judge\nupdate_spaces: {pairs: [[a, b]]}", ["roles", "name"]),
    ],
)
def test_what_is_wrong_with_one_section_hides_no_other_mistake(
    write_study: Callable[[str], Path], lines: str, keys: list[str]
) -> None:
    path = write_study(lines)
    with pytest.raises(UserError) as caught:
        load_study(path)
    begin = f"{path} extending {MINIATURE}: "
    assert [line.removeprefix(begin).split(": ")[0] for line in str(caught.value).splitlines()] == keys


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected a study, that is a mapping of keys to values, got None"),
        ("- a", "expected a study, that is a mapping of keys to values, got ['a']"),
        ("extends: 3", "extends: expected the path of a study file, got 3"),
        ("extends: ''", "extends: expected the path of a study file, got ''"),
        ("extends: study.yaml", "extends: expected no circle"),
        ("extends: loop.yaml", "study.yaml extending {here}/loop.yaml: cannot be read (Too many levels of symbolic"),
        (
            "extends: missing.yaml",
            "study.yaml extending {here}/missing.yaml: cannot be read (No such file or directory)",
        ),
        ("extends: $HERE/missing.yaml", "study.yaml extending {here}/missing.yaml: cannot be read"),
        ("extends: ~/missing.yaml", "study.yaml extending {here}/missing.yaml: cannot be read"),
        ("extends: $NOWHERE/a.yaml", "$NOWHERE/a.yaml: expected the environment variable NOWHERE, found none"),
        ("extends: .", "study.yaml extending {here}: cannot be read (Is a directory)"),
        ('extends: "a\\0b"', "cannot be read (embedded null byte)"),
        ("extends: broken.yaml", "study.yaml extending {here}/broken.yaml: line 1: not YAML"),
        ("extends: family.yaml", "study.yaml extending {here}/family.yaml extending {here}/gone.yaml: cannot be read"),
        ("a: &a [*a]", "line 1: not YAML that a study is written in: expected values, got an anchor that holds itself"),
        ("a:\n\tb: 1", "line 2: not YAML that a study is written in: found character '\\t'"),
        ("threads: " + 5000 * "9", "cannot be read (Exceeds the limit"),
    ],
)
def test_a_file_that_cannot_be_a_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, message: str
) -> None:
    for name in ("HOME", "HERE"):
        monkeypatch.setenv(name, str(tmp_path))
    path = tmp_path / "study.yaml"
    path.write_text(content)
    (tmp_path / "broken.yaml").write_text("seeds: [1")
    (tmp_path / "family.yaml").write_text("extends: gone.yaml")
    (tmp_path / "loop.yaml").symlink_to(tmp_path / "loop.yaml")
    with pytest.raises(UserError) as caught:
        load_study(path)
    assert message.format(here=tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("lines", "came"),
    [
        ("seeds: [5]", "got none"),
        ("name: null", "got none"),
        ("name: miniature", "got miniature, the name of the study that it extends"),
        ("name: parent", "got parent, the name of the study that it extends"),
    ],
)
def test_a_study_that_extends_another_has_a_name_of_its_own(tmp_path: Path, lines: str, came: str) -> None:
    """Without one its results would replace those of the study that it extends."""
    (tmp_path / "parent.yaml").write_text(f"extends: {CONFIGS}/miniature.yaml\nname: parent")
    study = tmp_path / "study.yaml"
    study.write_text(f"extends: parent.yaml\n{lines}")
    with pytest.raises(UserError, match=f"study.yaml: name: expected a name of its own, .*, {came}"):
        load_study(study)
    study.write_text("extends: parent.yaml\nname: child")
    assert load_study(study).name == "child"


def test_a_study_may_be_json(tmp_path: Path) -> None:
    path = tmp_path / "study.json"
    path.write_text(load_study(CONFIGS / "miniature.yaml").model_dump_json())
    assert load_study(path) == load_study(CONFIGS / "miniature.yaml")


def test_a_study_may_leave_the_overlap_of_updates_to_another(write_study: Callable[[str], Path]) -> None:
    assert load_study(write_study("update_spaces: null")).update_spaces is None


def test_last_column_goes_with_tokens_of_the_prompt(write_study: Callable[[str], Path]) -> None:
    window = "{of: prompt, stop: 2, combine: stacked}"
    study = load_study(write_study(f"activation_spaces: {{positions: [last_column, last_prompt_token, {window}]}}"))
    window = TokenWindow(of="prompt", start=0, stop=2, combine="stacked")
    assert study.activation_spaces.positions == ("last_column", "last_prompt_token", window)
    assert not study.activation_spaces.reads_answers


def test_layers_are_projected_with_the_others_whole_and_out(write_study: Callable[[str], Path]) -> None:
    entry = "{task: useful, scheme: parallel, metrics: [utility], layers: [0, 4]}"
    (scored,) = load_study(write_study(f"projection: {{scored: [{entry}]}}")).projection.scored
    assert (scored.layers, scored.others) == ((0, 4), ("whole", "out"))


def test_reading_a_study_imports_nothing_heavy() -> None:
    code = "import sys, safety_spaces.study; sys.exit(bool({'torch', 'numpy', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
