"""The table names every set once, its place on the hub and the columns that are needed of it."""

import pytest
from pydantic import ValidationError

from safety_spaces.data import table
from safety_spaces.data.table import DataSet, Hub, data_sets, find_data_set
from safety_spaces.errors import UserError


@pytest.mark.parametrize(
    ("name", "hint"),
    [("beavertail", "did you mean beavertails?"), ("ships", "expected one of advbench, .*, pku_saferlhf, .*xstest")],
)
def test_an_unknown_name_is_an_error_with_the_nearest_or_all(name, hint):
    with pytest.raises(UserError, match=f"^data set {name}: none has this name, and the study names no file.*; {hint}"):
        find_data_set(name)


def test_a_set_of_a_users_own_name_has_prompts_and_responses_and_a_known_name_stays_what_it_is():
    own = find_data_set("ships", own=("ships",))
    with pytest.raises(UserError, match=r"did you mean ships\?"):
        find_data_set("ship", own=("ships",))
    assert (own.prompt, own.response, own.hub) == ("prompt", "response", None)
    assert find_data_set("advbench", own=("advbench",)) is data_sets()["advbench"]


def test_columns_are_the_texts_and_what_else_is_needed():
    assert DataSet("query", "response", others=("label",)).columns == ("query", "response", "label")
    assert DataSet("query", "response").texts == ("query", "response")
    assert DataSet("text").columns == DataSet("text").texts == ("text",)


def test_a_place_on_the_hub_is_one_line_with_its_revision():
    assert str(Hub("owner/name", "train", ("a", "b"), "c0ffee")) == "owner/name a+b train @c0ffee"
    assert str(Hub("owner/name", "30k")) == "owner/name 30k @main"


def test_only_the_miniatures_own_sets_are_on_no_hub():
    assert [name for name, data_set in data_sets().items() if data_set.hub is None] == ["pretraining", "alignment"]


def test_two_sets_are_never_the_same_rows():
    places = [
        (data_set.hub.id, data_set.hub.configs, data_set.hub.split) for data_set in data_sets().values() if data_set.hub
    ]
    assert len(set(places)) == len(places)


def test_a_revision_is_a_whole_commit_or_main():
    revisions = {data_set.hub.revision for data_set in data_sets().values() if data_set.hub}
    assert all(revision == "main" or (len(revision) == 40 and int(revision, 16)) for revision in revisions)


def test_the_number_of_rows_that_meet_a_condition_is_known_where_the_table_counts_them():
    rows = find_data_set("xstest").most_rows
    assert (rows({"label": "safe"}), rows({"label": "unsafe", "type": "x"}), rows({"type": "x"})) == (250, 200, 450)
    assert find_data_set("pku_saferlhf").most_rows({"prompt": "a"}) is None


def test_a_misspelt_field_of_the_table_is_an_error(monkeypatch):
    monkeypatch.setattr(table, "read_document", lambda _: {"ships": {"prompt": "a", "hub": {"idd": "b", "split": "c"}}})
    with pytest.raises(ValidationError, match=r"ships\.hub\.idd"):
        data_sets.__wrapped__()
