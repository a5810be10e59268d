"""What a person calls prompt sets and bases; a set without a name of its own goes by that of its data set."""

from collections.abc import Mapping

from safety_spaces.study import Study

HUMAN = {
    "advbench": "AdvBench", "beavertails": "BeaverTails", "beavertails_test": "BeaverTails", "toxigen": "ToxiGen",
    "math": "MATH", "metamathqa": "MetaMathQA", "gsm8k_train": "GSM8K", "gsm8k_test": "GSM8K", "mmlu": "MMLU",
    "xstest": "XSTest", "extended_refusal": "Extended Refusal", "pku_saferlhf": "PKU-SafeRLHF",
}  # fmt: skip
"""Data set as a study file calls it -> its name in print."""


def set_names(study: Study) -> dict[str, str]:
    """Prompt set -> its name in print; the set's own name where two sets share a data set."""
    sets = study.activation_spaces.sets if study.activation_spaces else {}
    found = {name: HUMAN.get(one.dataset, one.dataset) if one else name for name, one in sets.items()}
    return {name: human if list(found.values()).count(human) == 1 else name for name, human in found.items()}


def pair_name(pair: str, names: Mapping[str, str]) -> str:
    """A pair such as useful-harmful_1 in print: MATH - BeaverTails, with a dash."""
    return " \N{EN DASH} ".join(names.get(part, part) for part in pair.split("-"))
