"""Rows of a data set on the Hugging Face hub, and one line for whatever keeps them from being read."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from safety_spaces.data.progress import without_progress_bars
from safety_spaces.data.table import Hub, Row
from safety_spaces.errors import UserError, quote

COMMIT_LENGTH = 40


def read_hub(
    name: str, hub: Hub, *, choose: Callable[[Iterable[str]], Iterable[str]], access: str | None = None
) -> list[Row]:
    """Read a split of a data set, from the cache or the network; `choose` picks the columns from those that came.

    Raises:
        UserError: it is gated, not cached where there is no network, not of the pinned revision, or cannot be read.
    """
    import datasets
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    try:
        with without_progress_bars():
            parts = [
                datasets.load_dataset(hub.id, config, split=hub.split, revision=hub.revision)
                for config in hub.configs or (None,)
            ]
    except (OSError, ValueError, httpx.HTTPError, datasets.exceptions.DatasetsError) as error:
        raise UserError(_problem(error, name, hub, access=access)) from error
    for part in parts:
        _check_revision(part, name, hub)
    return [
        row for part in parts for row in part.select_columns(list(dict.fromkeys(choose(part.column_names)))).to_list()
    ]


def _check_revision(part: Any, name: str, hub: Hub) -> None:
    # Without a network `datasets` takes the newest copy of its cache, whatever revision was asked for.
    pinned = len(hub.revision) == COMMIT_LENGTH
    for file in part.cache_files if pinned else ():
        cached = Path(file["filename"]).parent.name
        if cached != hub.revision:
            raise UserError(
                f"{name}: expected the revision {hub.revision} of {hub.id}, got {cached} from the cache; "
                "run once with --download where there is a network"
            )


def _problem(error: BaseException, name: str, hub: Hub, *, access: str | None) -> str:
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    causes = list(_causes(error))

    def is_any(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    copy = f"name a local copy: datasets: {{{name}: {{path: FILE}}}}"
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


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
