"""A study of seconds: the miniature's code on a model of two layers, for tests of the experiments and the scripts."""

import importlib.util
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import yaml

from safety_spaces.command_line import Arguments, parse_arguments
from safety_spaces.evaluation.prompt_sets import prompt_set
from safety_spaces.experiments.plan.card import Planned
from safety_spaces.experiments.plan.costs import Counts, counts
from safety_spaces.experiments.plan.text import plan
from safety_spaces.experiments.plan.work import whole_work

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = {
    "finetune": "scripts/finetune.py",
    "projection": "scripts/projection.py",
    "update_spaces": "exp-3-update_spaces/update_spaces.py",
    "activation_space": "exp-4-activation_spaces/activation_space.py",
    "report": "scripts/report.py",
}

SIZES = {
    "pretraining": 96,
    "alignment": 48,
    "pku_saferlhf": 32,
    "metamathqa": 40,
    "beavertails": 48,
    "beavertails_test": 40,
    "gsm8k_train": 4,
    "gsm8k_test": 6,
    "math": 16,
    "mmlu": 9,
    "mmlu_dev": 8,
    "advbench": 7,
    "xstest": 10,
    "extended_refusal": 14,
    "toxigen": 48,
}

PICO = {
    "extends": str(ROOT / "configs" / "miniature.yaml"),
    "name": "pico",
    "model": "pico-llama",
    "seeds": [0, 3],
    "workers": 1,
    "world": {"seed": 5, "sizes": SIZES},
    "training": {"batch_size": 8, "accumulation": 1, "learning_rate": 0.01, "epochs": 1},
    "corpora": {"useful": {"rows": 40}, "harmful": {"rows": 16}},
    "roles": {
        "base": {
            "architecture": {"hidden": 24, "layers": 2, "heads": 2, "key_value_heads": 1, "intermediate": 40},
            "training": {"batch_size": 4, "accumulation": 2},
        },
    },
    "projection": {
        "fractions": [0.1, 0.5, 0.9],
        "doses": [],
        "matched": False,
        "energy_draws": 2,
        "score_draws": 2,
        "scored": [
            {"task": "useful", "scheme": "parallel", "metrics": ["utility"]},
            {"task": "harmful", "scheme": "parallel", "metrics": ["harmfulness"]},
            {"task": "contaminated", "scheme": "parallel", "metrics": ["utility", "harmfulness"]},
            {"task": "contaminated", "scheme": "orthogonal", "metrics": ["utility", "harmfulness"]},
        ],
    },
    "update_spaces": {"etas": [0.1, 0.5, 0.9]},
    "evidence": {"fractions": [0.1, 0.5, 0.9], "resamples": 50},
    "activation_spaces": {"prompts": 12, "etas": [0.1, 0.5, 0.9]},
    "evaluation": {
        "batch_size": 4,
        "utility": {"prompts": 6, "max_new_tokens": 6},
        "harmfulness": {"limit": 7, "max_new_tokens": 6},
        "utility_margin": None,
        "harm_margin": None,
    },
}


MARGINS = {
    "utility_margin": {"dataset": "gsm8k_test", "limit": 6},
    "harm_margin": {"dataset": "advbench", "cluster": "deed", "compliance": "answer", "refusal": "refusal", "limit": 7},
}
WITH_CONTROLS = {
    "projection": {
        **PICO["projection"],
        "doses": [0.3, 0.7],
        "matched": True,
        "scored": [
            {**one, "metrics": [*one["metrics"], *(MARGINS if one["task"] == "contaminated" else ())]}
            for one in PICO["projection"]["scored"]
        ],
    },
    "evaluation": {**PICO["evaluation"], **MARGINS},
}
"""What makes the pico study one with the controls scaled and matched, and with margins."""


def write_study(path: Path, **changes: object) -> Path:
    """Write the pico study with top-level keys changed; return its path."""
    path.write_text(yaml.safe_dump({**PICO, **changes}))
    return path


def of_model(name: str, folder: Path, **changes: object) -> Arguments:
    """Write a study that extends that of a model of the paper, with top-level keys changed; return its command."""
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({"extends": str(ROOT / f"configs/{name}.yaml"), "name": "own", **changes}))
    return parse_arguments("", [str(path), "--runs", str(folder / "runs")])


def prompts_of(command: Arguments, name: str) -> list[str]:
    """Return the prompts of a prompt set of a study."""
    return prompt_set(command.texts, command.study.activation_spaces, name)


def load_script(name: str) -> ModuleType:
    """Import a script from its file: the exp-* folders have hyphens and are no packages."""
    spec = importlib.util.spec_from_file_location(f"script_{name}", ROOT / SCRIPTS[name])
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def run_script(name: str, study: Path, folder: Path, *extra: str) -> int:
    """Call a script's main on a study whose runs and results lie below `folder`."""
    main: Callable[[list[str]], int] = load_script(name).main
    return main([str(study), "--runs", str(folder / "runs"), "--results", str(folder / "results"), *extra])


def copy_run(source: Path, target: Path) -> Path:
    """Copy a finished run, so that a test may break it."""
    return Path(shutil.copytree(source, target))


def planned_of(arguments: Arguments) -> Planned:
    """What a command plans."""
    options = arguments.device, arguments.geometry_only, arguments.keep_factors
    return Planned(arguments.roles, arguments.texts, *options)


def plan_of(arguments: Arguments) -> str:
    """The plan that a command prints."""
    return "\n".join(plan(planned_of(arguments)))


def counts_of(arguments: Arguments) -> Counts:
    """What the whole work of a command counts."""
    return counts(arguments.texts, whole_work(arguments.study, geometry_only=arguments.geometry_only))
