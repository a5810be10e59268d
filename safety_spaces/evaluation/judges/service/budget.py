"""What judging has cost: counted before a request leaves, in a file that outlives the process.

A request is counted with the most that it may cost before it is sent, and with what it did cost once the reply says so.
So neither requests that are under way together, nor a reply that never came, nor a kill can lead past the budget.
"""

from dataclasses import dataclass
from pathlib import Path

from safety_spaces.errors import UserError
from safety_spaces.store import one_at_a_time, read_json, write_json


@dataclass(frozen=True)
class Budget:
    """US dollars that one judge may spend in one process; `setting` is the place in the study that says so."""

    ledger: Path
    dollars: float
    setting: str

    @property
    def spent(self) -> float:
        """US dollars spent so far, requests that are under way counted with the most that they may cost."""
        return spent_in(self.ledger)

    def reserve(self, dollars: float) -> None:
        """Count what a request may cost at most, before it is sent; raises UserError when that exceeds the budget."""
        # The same study may have been started twice.
        with one_at_a_time(self.ledger.with_suffix(".lock")):
            spent = self.spent
            if spent + dollars > self.dollars:
                raise UserError(
                    f"{self.ledger}: expected to spend at most {self.dollars:.4f} US dollars in this process, "
                    f"{spent:.4f} are spent and the next reply may cost {dollars:.4f}; raise {self.setting}, "
                    "then run again (replies so far are kept)"
                )
            write_json(self.ledger, {"dollars": spent + dollars})

    def settle(self, reserved: float, cost: float) -> None:
        """Count what a request did cost in the place of what was reserved for it."""
        with one_at_a_time(self.ledger.with_suffix(".lock")):
            write_json(self.ledger, {"dollars": self.spent - reserved + cost})


def spent_in(ledger: Path) -> float:
    """Return the US dollars that a ledger counts; 0 where there is none."""
    content = read_json(ledger)
    return 0.0 if content is None else float(content["dollars"])
