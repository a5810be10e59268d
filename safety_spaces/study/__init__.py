"""What one YAML file says: the only place where settings are defined."""

from safety_spaces.study.corpora import Corpus, DataFile, MixedCorpus, Selection, SingleCorpus, World
from safety_spaces.study.evaluation import (
    Evaluation,
    GeneralAbility,
    Generation,
    Harmfulness,
    OverRefusal,
    Utility,
)
from safety_spaces.study.judges import (
    KEY_VARIABLE,
    ClassifierJudge,
    Judge,
    KeywordJudge,
    Price,
    RubricJudge,
    ServiceJudge,
)
from safety_spaces.study.loading import load_study, study_files
from safety_spaces.study.recipes import Architecture, Existing, FineTuned, Pretrained, Recipe, Training
from safety_spaces.study.settings import (
    ActivationSpaces,
    Metric,
    Others,
    OwnBasis,
    Position,
    Projection,
    Scored,
    TokenWindow,
    UpdateSpaces,
)
from safety_spaces.study.study import Gpu, Study
from safety_spaces.tensors import FIXED_BASES, draws

__all__ = [
    "FIXED_BASES",
    "KEY_VARIABLE",
    "ActivationSpaces",
    "Architecture",
    "ClassifierJudge",
    "Corpus",
    "DataFile",
    "Evaluation",
    "Existing",
    "FineTuned",
    "GeneralAbility",
    "Generation",
    "Gpu",
    "Harmfulness",
    "Judge",
    "KeywordJudge",
    "Metric",
    "MixedCorpus",
    "Others",
    "OverRefusal",
    "OwnBasis",
    "Position",
    "Pretrained",
    "Price",
    "Projection",
    "Recipe",
    "RubricJudge",
    "Scored",
    "Selection",
    "ServiceJudge",
    "SingleCorpus",
    "Study",
    "TokenWindow",
    "Training",
    "UpdateSpaces",
    "Utility",
    "World",
    "draws",
    "load_study",
    "study_files",
]
