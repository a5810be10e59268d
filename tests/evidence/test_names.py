"""Prompt sets go by the names of their data sets, unless two share one."""

from types import SimpleNamespace

from safety_spaces.evidence.names import pair_name, set_names


def study(**sets):
    chosen = {name: dataset and SimpleNamespace(dataset=dataset) for name, dataset in sets.items()}
    return SimpleNamespace(activation_spaces=SimpleNamespace(sets=chosen))


def test_harmful_sets_are_called_what_a_person_calls_them():
    names = set_names(study(useful="math", harmful_1="beavertails_test", harmful_2="toxigen", refusal="my_own"))
    assert names == {"useful": "MATH", "harmful_1": "BeaverTails", "harmful_2": "ToxiGen", "refusal": "my_own"}
    assert pair_name("harmful_1-harmful_2", names) == "BeaverTails – ToxiGen"


def test_two_sets_of_one_data_set_keep_their_own_names():
    names = set_names(study(useful="math", harmful_1="beavertails", harmful_2="beavertails_test"))
    assert names == {"useful": "MATH", "harmful_1": "harmful_1", "harmful_2": "harmful_2"}


def test_a_study_without_activations_has_no_names():
    assert set_names(SimpleNamespace(activation_spaces=None)) == {}
    assert pair_name("useful-reference", {}) == "useful – reference"
