"""The paper's figures, drawn from the tables with the chance level or the random control in each.

Every function returns a `matplotlib.figure.Figure`; `save` writes it as a PNG whose bytes depend on the tables alone.
"""

from matplotlib.figure import Figure

from safety_spaces.evidence.figures.overlap import figure_4, figure_5
from safety_spaces.evidence.figures.projection import figure_2, figure_3, figure_3_parallel
from safety_spaces.evidence.figures.style import save

__all__ = ["Figure", "figure_2", "figure_3", "figure_3_parallel", "figure_4", "figure_5", "save"]
