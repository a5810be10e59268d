"""A folder gives the files of its split and configurations, whatever names they have, or says what is missing."""

import shutil

import datasets
import pytest

from safety_spaces.data.files import read_file
from safety_spaces.data.hub import folder_files
from safety_spaces.data.table import Hub
from safety_spaces.errors import UserError


def write(folder, suffix=".jsonl", name="rows"):
    path = folder / f"{name}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


HUB = Hub("owner/name", "test", ("first", "second"))
CARD = """---
configs:
- config_name: second
  data_files: [{split: train, path: b/train*}, {split: test, path: b/test*}]
- config_name: first
  data_files: [{split: train, path: a/train*}, {split: test, path: a/test*}]
---
"""


def names(folder, hub=HUB):
    return [str(file.relative_to(folder)) for file in folder_files(folder, "name", hub=hub)]


def test_a_folder_gives_the_split_by_the_names_of_its_files(tmp_path):
    for name in ("train", "test"):
        write(tmp_path, name=name)
    (tmp_path / "LICENSE").write_text("MIT")
    assert names(tmp_path) == ["test.jsonl"]


def test_a_folder_with_one_split_stands_for_any(tmp_path):
    write(tmp_path, ".csv", name="harmless_requests")
    assert names(tmp_path) == names(tmp_path, None) == ["harmless_requests.csv"]


def test_a_dataset_card_says_which_files_are_a_configuration_and_the_table_their_order(tmp_path):
    for name in ("a/train", "a/test", "b/train", "b/test"):
        write(tmp_path, name=name)
    (tmp_path / "README.md").write_text(CARD)
    assert names(tmp_path) == ["a/test.jsonl", "b/test.jsonl"]


def test_without_a_card_a_subfolder_is_a_configuration(tmp_path):
    for name in ("other/test", "first/test", "second/test-00000-of-00002", "second/test-00001-of-00002"):
        write(tmp_path, ".parquet", name=name)
    assert names(tmp_path) == [
        "first/test.parquet",
        "second/test-00000-of-00002.parquet",
        "second/test-00001-of-00002.parquet",
    ]


def test_a_folder_that_is_no_copy_of_the_set_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"expected data files of name \(.*\); name a file of it instead"):
        names(tmp_path)
    for name in ("first/train", "first/validation"):
        write(tmp_path, name=name)
    with pytest.raises(UserError, match="expected the configurations first, second of name, got default; copy the"):
        names(tmp_path)
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    with pytest.raises(UserError, match="expected the split test of name, got train, validation; name a file of it"):
        names(tmp_path)
    (tmp_path / "README.md").write_text(CARD.replace("a/", "first/").replace("b/", "second/").replace("test", "val"))
    with pytest.raises(UserError, match="expected one configuration of name, got second, first; copy the whole"):
        names(tmp_path, None)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("README.md", "---\nconfigs: [\n---\n"),
        ("README.md", "---\nx: !!python/none\n---\n"),
        ("README.md", "---\nconfigs: 7\n---\n"),
        (".huggingface.yaml", "configs: ["),
        ("dataset_infos.json", "[1]"),
        ("name.py", "raise SystemExit"),
    ],
)
def test_a_folder_that_describes_itself_wrongly_is_an_error_of_one_line(tmp_path, name, content):
    folder = tmp_path / "name"
    write(folder, name="test")
    (folder / name).write_text(content)
    with pytest.raises(UserError, match=r"expected data files of name \(.*\); name a file of it instead"):
        names(folder)


def test_a_folder_that_datasets_saved_is_read_and_splits_of_an_own_set_are_named(tmp_path):
    splits = {name: datasets.Dataset.from_list([{"prompt": name}]) for name in ("train", "test")}
    splits["test"].save_to_disk(tmp_path / "one")
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "all")
    for folder, hub in ((tmp_path / "one", None), (tmp_path / "all", Hub("owner/name", "test"))):
        (file,) = folder_files(folder, "name", hub=hub)
        assert read_file(file, prompt="prompt") == [{"prompt": "test"}]
    with pytest.raises(UserError, match="expected one split of name, got train, test; name a file of it"):
        names(tmp_path / "all", None)


def test_a_folder_leaves_nothing_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    write(tmp_path / "copy", name="test")
    assert names(tmp_path / "copy") == ["test.jsonl"]
    assert not (tmp_path / "cache").exists()


def test_a_file_of_the_splits_own_name_goes_before_others_that_hold_it(tmp_path):
    for name in ("train", "test", "train_socratic", "test_socratic", "example_model_solutions"):
        write(tmp_path, name=name)
    assert names(tmp_path, Hub("owner/name", "test", ("main",))) == ["test.jsonl"]


@pytest.mark.parametrize("form", ["{}_train", "{}-train", "train/{}/1", "{}"])
def test_files_named_after_configurations_are_there_for_all_of_them(tmp_path, form):
    hub = Hub("owner/name", "train", ("sums", "intermediate_sums", "shapes"))
    for config in hub.configs:
        write(tmp_path, name=form.format(config))
    assert len(names(tmp_path, hub)) == 3
    (tmp_path / f"{form.format('sums')}.jsonl").unlink()
    with pytest.raises(UserError, match="expected the configurations of name, got none of sums; copy the whole"):
        names(tmp_path, hub)


def test_a_split_that_calls_itself_another_one_does_not_stand_for_it(tmp_path):
    write(tmp_path, name="test")
    for split in ("train", "330k_train"):
        with pytest.raises(UserError, match=f"expected the split {split} of name, got test; name a file of it"):
            names(tmp_path, Hub("owner/name", split))
    assert names(tmp_path, Hub("owner/name", "330k_test")) == ["test.jsonl"]


def test_the_folder_of_mmlu_itself_has_a_file_for_each_subject(tmp_path):
    for split in ("test", "dev", "val"):
        for subject in ("virology", "anatomy"):
            path = tmp_path / f"data/{split}/{subject}_{split}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("q,1,2,3,4,A\n")
    for split in ("test", "dev"):
        expected = [f"data/{split}/{subject}_{split}.csv" for subject in ("anatomy", "virology")]
        assert names(tmp_path, Hub("cais/mmlu", split, ("all",))) == expected
