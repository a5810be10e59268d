"""What one YAML file says: the only place where settings are defined."""

from safety_spaces.study.corpora import WORLD_CORPORA, MixedCorpus, Selection, SingleCorpus
from safety_spaces.study.evaluation import (
    Evaluation,
    GeneralAbility,
    Harmfulness,
    HarmMargin,
    OverRefusal,
    Utility,
    UtilityMargin,
)
from safety_spaces.study.fields import part_of
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
from safety_spaces.study.positions import Position, SingleToken, TokenWindow
from safety_spaces.study.recipes import (
    CHAT,
    Architecture,
    Existing,
    FineTuned,
    Pretrained,
    Recipe,
    TemplateName,
    Trained,
    Training,
)
from safety_spaces.study.sections import Evidence, Gpu
from safety_spaces.study.settings import (
    MARGINS,
    OUTCOMES,
    ActivationSpaces,
    Metric,
    Others,
    OwnBasis,
    Projection,
    Scored,
    UpdateSpaces,
)
from safety_spaces.study.study import Study
