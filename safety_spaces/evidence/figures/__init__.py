"""The paper's figures, drawn from the tables with the chance level or the random control in each.

`catalogue` says which of them a study has; a planned figure draws a figure with its caption, `save` writes it as PNG
and PDF, and `svg` gives it as an element of a page, with bytes that depend on the tables alone.
"""

from safety_spaces.evidence.figures.catalogue import Planned, catalogue
from safety_spaces.evidence.figures.style import Drawn, save, svg

__all__ = ["Drawn", "Planned", "catalogue", "save", "svg"]
