"""The paper's figures, drawn from the tables with the chance level or the random control in each.

`catalogue` says which of them a study has; a planned figure draws a `matplotlib.figure.Figure`, and `save` writes it as
a PNG whose bytes depend on the tables alone.
"""

from matplotlib.figure import Figure

from safety_spaces.evidence.figures.catalogue import Planned, catalogue
from safety_spaces.evidence.figures.style import save

__all__ = ["Figure", "Planned", "catalogue", "save"]
