"""What one YAML file says: the only place where settings are defined."""

from safety_spaces.study.corpora import Corpus, DataFile, MixedCorpus, Selection, SingleCorpus, World
from safety_spaces.study.loading import load_study, study_files
from safety_spaces.study.recipes import Architecture, Existing, FineTuned, Pretrained, Recipe, Training
from safety_spaces.study.settings import (
    FIXED_BASES,
    ActivationSpaces,
    Evaluation,
    Harmfulness,
    Judge,
    OwnBasis,
    Projection,
    Scored,
    UpdateSpaces,
    Utility,
    draws,
)
from safety_spaces.study.study import Study

__all__ = [
    "FIXED_BASES",
    "ActivationSpaces",
    "Architecture",
    "Corpus",
    "DataFile",
    "Evaluation",
    "Existing",
    "FineTuned",
    "Harmfulness",
    "Judge",
    "MixedCorpus",
    "OwnBasis",
    "Pretrained",
    "Projection",
    "Recipe",
    "Scored",
    "Selection",
    "SingleCorpus",
    "Study",
    "Training",
    "UpdateSpaces",
    "Utility",
    "World",
    "draws",
    "load_study",
    "study_files",
]
