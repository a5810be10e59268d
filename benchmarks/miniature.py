"""Wall time and peak memory of the miniature in fresh folders, and its pretraining against a bare loop.

    python benchmarks/miniature.py              two seeds, a second run, one seed and the appendices, pretraining
                                                (about 40 minutes)
    python benchmarks/miniature.py pretraining  one part

Writes results/benchmarks/miniature-<part>.csv. Every stage runs in a process of its own, as `reproduce.sh` runs it;
installation is not counted. Machines are noisy: compare parts of one run.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# The code of this clone, whichever one is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
# As the commands: threads that wait sleep. Read when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from stamp import STAMP, environment_stamp

from safety_spaces.command_line import DEFAULT_STUDY, ROOT, parse_arguments
from safety_spaces.experiments.finetune import prepare_corpora
from safety_spaces.miniature.tokenizer import wrap_tokenizer
from safety_spaces.record import write_table
from safety_spaces.study import load_study
from safety_spaces.training.architecture import new_model
from safety_spaces.training.train import train

COLUMNS = ("part", "stage", "seconds", "peak_rss_bytes", "tokens_per_second", *STAMP)
STAGES = {
    "finetune": "scripts/finetune.py",
    "projection": "scripts/projection.py",
    "update_spaces": "exp-3-update_spaces/update_spaces.py",
    "activation_spaces": "exp-4-activation_spaces/activation_space.py",
    "report": "scripts/report.py",
}
APPENDICES = ("miniature-dpo", "miniature-safety-tuned", "miniature-appendices")
PRETRAINING_ROWS = 3200

Row = dict[str, Any]


def measure_stages(part: str, study: Path, folder: Path) -> Iterator[Row]:
    """Run the five stages; yield their seconds and peak resident memory, then the total."""
    total, peak = 0.0, 0
    for stage, script in STAGES.items():
        call = [sys.executable, ROOT / script, study, "--runs", folder / "runs", "--results", folder / "results"]
        start = time.perf_counter()
        process = subprocess.Popen([str(part) for part in call], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        seconds, memory = time.perf_counter() - start, used.ru_maxrss * 1024
        if status:
            raise SystemExit(f"{stage} of {part} failed: run it by hand")
        total, peak = total + seconds, max(peak, memory)
        yield {"part": part, "stage": stage, "seconds": seconds, "peak_rss_bytes": memory}
    yield {"part": part, "stage": "all", "seconds": total, "peak_rss_bytes": peak}


def two_seeds() -> Iterator[Row]:
    """Measure the default study from empty folders, and its second run when it is finished."""
    with tempfile.TemporaryDirectory() as folder:
        yield from measure_stages("two seeds", DEFAULT_STUDY, Path(folder))
        yield from measure_stages("two seeds, second run", DEFAULT_STUDY, Path(folder))


def one_seed() -> Iterator[Row]:
    """Measure the default study with its first seed alone, then the appendices, which take its models."""
    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder) / "study.yaml"
        # The study keeps its name and extends none: the appendices look for their models below that name.
        study.write_text(load_study(DEFAULT_STUDY).model_copy(update={"seeds": (0,)}).model_dump_json())
        yield from measure_stages("one seed", study, Path(folder))
        for name in APPENDICES:
            yield from measure_stages(name, DEFAULT_STUDY.with_name(f"{name}.yaml"), Path(folder))


def pretraining() -> Iterator[Row]:
    """Measure the trainer and a bare loop on the same rows and the same new model."""
    with tempfile.TemporaryDirectory() as folder:
        command = parse_arguments("", ["--runs", folder])
        torch.set_num_threads(command.study.threads)
        prepare_corpora(command.study, command.layout)
        rows = command.texts.role_rows("base", 0)[:PRETRAINING_ROWS]
        recipe: Any = command.study.roles["base"]
        texts = [row["text"] for row in rows]
        tokenizer = wrap_tokenizer(texts, vocabulary=recipe.architecture.vocabulary)
        tokens = sum(len(tokenizer(text)["input_ids"]) + 1 for text in texts)
        ways: dict[str, Callable[[Any], object]] = {
            "trainer": lambda model: train(
                model, tokenizer, rows, settings=recipe.training, seed=0, output=Path(folder) / "out", name="base",
                device=torch.device("cpu"),
            ),
            "bare loop": lambda model: bare_loop(model, tokenizer, texts, recipe.training),
        }  # fmt: skip
        for name, way in ways.items():
            start = time.perf_counter()
            way(new_model(recipe.architecture, tokenizer, seed=0))
            seconds = time.perf_counter() - start
            yield {"part": "pretraining", "stage": name, "seconds": seconds, "tokens_per_second": tokens / seconds}


def bare_loop(model: Any, tokenizer: Any, texts: list[str], settings: Any) -> None:
    """Train without a trainer: the least that the same steps can cost."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=0.0, fused=True)
    model.train()
    a_step = settings.batch_size * settings.accumulation
    for start in range(0, len(texts), a_step):
        batch = [text + tokenizer.eos_token for text in texts[start : start + a_step]]
        encoded = tokenizer(batch, return_tensors="pt", padding=True)
        labels = encoded["input_ids"].masked_fill(encoded["attention_mask"] == 0, -100)
        loss = model(input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"], labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()


PARTS = {"two-seeds": two_seeds, "one-seed": one_seed, "pretraining": pretraining}


def main() -> None:
    """Measure the parts asked for; print one JSON line for each row and write a table for each part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="parts to measure (default: all)")
    stamp = environment_stamp()
    for part in parser.parse_args().parts or PARTS:
        rows = []
        for measured in PARTS[part]():
            rows.append({**dict.fromkeys(COLUMNS), **measured, **stamp})
            print(json.dumps(rows[-1]), flush=True)
        write_table(ROOT / f"results/benchmarks/miniature-{part}.csv", COLUMNS, rows)


if __name__ == "__main__":
    main()
