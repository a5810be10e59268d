"""lm-eval's real command line, offline, on a saved checkpoint and rows in files."""

import json
import os
import subprocess
import sys

import yaml


def command_line(folder, *, model, tokenizer, tasks, options):
    """Run tasks {file of lm-eval: split -> rows}; return {file: its samples in the order of the questions}."""
    model.save_pretrained(folder / "checkpoint")
    tokenizer.save_pretrained(folder / "checkpoint")
    (folder / "tasks").mkdir()
    names = {theirs: f"{theirs.stem}_files" for theirs in tasks}
    for theirs, splits in tasks.items():
        _write_task(folder, names[theirs], theirs, splits)
    arguments = {
        "--model": "hf",
        "--model_args": f"pretrained={folder / 'checkpoint'},dtype=float32",
        "--include_path": folder / "tasks",
        "--tasks": ",".join(names.values()),
        "--batch_size": 4,
        "--device": "cpu",
        "--output_path": folder / "output",
        **options,
    }
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "cache")}
    subprocess.run(
        [sys.executable, "-m", "lm_eval", "--log_samples", *(str(word) for pair in arguments.items() for word in pair)],
        env={**os.environ, **offline, "TOKENIZERS_PARALLELISM": "false"},
        check=True,
        capture_output=True,
    )
    return {theirs: _samples(folder, name) for theirs, name in names.items()}


def _write_task(folder, name, theirs, splits):
    files = {split: folder / f"{name}-{split}.jsonl" for split in splits}
    for split, path in files.items():
        path.write_text("".join(json.dumps(row) + "\n" for row in splits[split]))
    local = {
        "include": str(theirs),
        "task": name,
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {split: str(path) for split, path in files.items()}},
    }
    (folder / "tasks" / f"{name}.yaml").write_text(yaml.safe_dump(local))


def _samples(folder, name):
    (written,) = folder.glob(f"output/*/samples_{name}_*.jsonl")
    samples = [json.loads(line) for line in written.read_text().splitlines()]
    return sorted(samples, key=lambda sample: sample["doc_id"])
