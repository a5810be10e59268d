"""Data sets as they lie on the Hugging Face hub: a split from its cache or the network, or the files of a copy."""

import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml

from safety_spaces.data.table import DataSet, Hub, Row
from safety_spaces.errors import UserError, quote


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Switch off the progress bars of datasets and huggingface_hub, and put them back: a command shows its own."""
    import datasets
    import huggingface_hub.utils

    shown = [switch for switch in (datasets, huggingface_hub.utils) if not switch.are_progress_bars_disabled()]
    for switch in shown:
        switch.disable_progress_bars()
    try:
        yield
    finally:
        for switch in shown:
            switch.enable_progress_bars()


def read_hub(name: str, data_set: DataSet, *, choose: Callable[[Sequence[str]], Iterable[str]]) -> list[Row]:
    """Read a split of a data set, of columns that `choose` picks; raises UserError when it cannot be had or read."""
    import datasets
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    if (hub := data_set.hub) is None:
        raise UserError(
            f"{name}: expected a local copy, it is on no hub; name it: datasets: {{{name}: {{path: FILE}}}}"
        )
    try:
        with without_progress_bars():
            parts = [
                datasets.load_dataset(hub.id, config, split=hub.split, revision=hub.revision)
                for config in hub.configs or (None,)
            ]
    except (OSError, ValueError, httpx.HTTPError, datasets.exceptions.DatasetsError) as error:
        raise UserError(_problem(error, name, hub, data_set.access)) from error
    # Without a network `datasets` takes the newest copy of its cache, whatever revision was asked for.
    cached = {Path(file["filename"]).parent.name for part in parts for file in part.cache_files}
    if hub.is_pinned and (others := cached - {hub.revision}):
        raise UserError(
            f"{name}: expected the revision {hub.revision} of {hub.id}, got {min(others)} from the cache; "
            "run once with --download where there is a network"
        )
    chosen = [part.select_columns(list(dict.fromkeys(choose(part.column_names)))) for part in parts]
    return [row for part in chosen for row in part.to_list()]


def _problem(error: BaseException, name: str, hub: Hub, access: str | None) -> str:
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    copy = f"name a local copy: datasets: {{{name}: {{path: FILE}}}}"
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)

    def is_any(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    if is_any(RevisionNotFoundError):
        return f"{name}: expected the revision {hub.revision} of {hub.id}, found none; {copy}"
    if is_any(RepositoryNotFoundError, DatasetNotFoundError):
        return (
            f"{name}: {hub.id} needs access{f' ({access})' if access else ''}; ask for access at "
            f"https://huggingface.co/datasets/{hub.id} and log in with `hf auth login`, or {copy}"
        )
    if is_any(ConnectionError, httpx.TransportError, LocalEntryNotFoundError) or "Couldn't find cache" in str(error):
        return (
            f"{name}: {hub.id} is not in the cache and the hub cannot be reached; "
            f"run once with --download where there is a network, or {copy}"
        )
    return f"{name}: {hub.id} cannot be read ({quote(str(error).partition(chr(10))[0])}); {copy}"


def folder_files(folder: Path, name: str, *, hub: Hub | None) -> list[Path]:
    """Return the files of a folder that hold the split of a data set, the configurations of `hub` in their order.

    A folder with one split stands for any split, a folder with one configuration for all, unless the names of its files
    say otherwise. MMLU's own folder has a file for each subject. Raises UserError when the folder holds no data files,
    or not the split or the configurations.
    """
    import datasets

    hub = hub or Hub(id="", split="")
    if hub.split and (subjects := sorted(folder.glob(f"**/{hub.split}/*_{hub.split}.csv"))):
        return subjects
    try:
        with without_progress_bars():
            available = datasets.get_dataset_config_names(str(folder.absolute()))
            choices = _choices(folder, name, hub.configs, available=available)
            files = [file for choice in choices for file in _split_files(folder, name, hub.split, choice=choice)]
    # What a broken dataset card makes `datasets` raise.
    except (OSError, ValueError, RuntimeError, AttributeError, TypeError, yaml.YAMLError) as error:
        raise UserError(
            f"{folder}: expected data files of {name} ({quote(error)}); name a file of it instead"
        ) from error
    paths = "\n".join(f"/{file.relative_to(folder.absolute()).as_posix()}" for file in files)
    missing = [one for one in hub.configs if not re.search(rf"(?m)([/.-]|{hub.split}_){one}([/._-]|$)", paths)]
    # Files that are named after configurations are to be those of all of them.
    if 0 < len(missing) < len(hub.configs):
        came = f"got none of {', '.join(missing)}; copy the whole data set"
        raise UserError(f"{folder}: expected the configurations of {name}, {came}")
    return files


def _choices(folder: Path, name: str, configs: Sequence[str], *, available: Sequence[str]) -> list[dict[str, str]]:
    """Return what tells `datasets` each configuration: its name, or its subfolder in a copy without a dataset card."""
    if configs and set(configs) <= set(available):
        return [{"name": config} for config in configs]
    if configs and all((folder / config).is_dir() for config in configs):
        return [{"data_dir": config} for config in configs]
    if len(available) == 1 and not any((folder / config).is_dir() for config in configs):
        return [{"name": available[0]}]
    missing = ", ".join(config for config in configs if config not in available)
    expected = f"the configurations {quote(missing)}" if configs else "one configuration"
    raise UserError(
        f"{folder}: expected {expected} of {name}, got {quote(', '.join(available))}; copy the whole data set"
    )


def _split_files(folder: Path, name: str, split: str, *, choice: Mapping[str, str]) -> list[Path]:
    import datasets

    # A cache of its own: the builder leaves a lock file behind.
    with tempfile.TemporaryDirectory() as cache:
        builder = datasets.load_dataset_builder(str(folder.absolute()), cache_dir=cache, **choice)
    found = {str(split): [Path(file) for file in files] for split, files in builder.config.data_files.items()}
    only = next(iter(found))
    # `datasets` calls nameless files train.
    paths = [file.relative_to(folder.absolute()).as_posix() for file in found[only]]
    says_so = any(only in re.split("[^a-z]", path) for path in paths)
    is_another = says_so and split.rpartition("_")[2] in {"train", "test", "dev"} - {only}
    if split not in found and (len(found) > 1 or is_another):
        expected = f"the split {split}" if split else "one split"
        raise UserError(f"{folder}: expected {expected} of {name}, got {', '.join(found)}; name a file of it")
    files = found.get(split, found[only])
    # GSM8K's own folder holds test_socratic.jsonl beside test.jsonl.
    exact = [file for file in files if re.fullmatch(rf"{split}(-\d+-of-\d+)?", file.name.partition(".")[0])]
    return exact or files
