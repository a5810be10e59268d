"""What was reserved counts until it is settled, in whatever process and after any kill."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from safety_spaces.errors import UserError
from safety_spaces.evaluation.judges.service.budget import Budget, spent_in


def test_a_reservation_counts_until_it_is_settled_and_outlives_the_process(tmp_path):
    ledger = tmp_path / "new/ledger.json"
    assert spent_in(ledger) == 0
    Budget(ledger, 1.0, "evaluation.over_refusal.judge.budget").reserve(0.75)
    again = Budget(ledger, 1.0, "evaluation.over_refusal.judge.budget")
    assert again.spent == 0.75
    again.settle(0.75, 0.125)
    assert spent_in(ledger) == again.spent == 0.125
    again.reserve(0.875)
    assert again.spent == 1.0


def test_the_budget_is_never_exceeded_and_the_message_has_the_numbers(tmp_path):
    budget = Budget(tmp_path / "ledger.json", 1.0, "evaluation.over_refusal.judge.budget")
    budget.reserve(0.75)
    numbers = (
        r"at most 1\.0000 US dollars in this process, 0\.7500 are spent and the next reply may cost 0\.2600; "
        r"raise evaluation\.over_refusal\.judge\.budget, then run again"
    )
    with pytest.raises(UserError, match=numbers):
        budget.reserve(0.26)
    assert budget.spent == 0.75


def test_threads_do_not_lose_one_anothers_reservations(tmp_path):
    budget = Budget(tmp_path / "ledger.json", 10.0, "evaluation.over_refusal.judge.budget")

    def reserve(number):
        try:
            budget.reserve(0.5)
        except UserError:
            return 0
        return 1

    with ThreadPoolExecutor(7) as pool:
        assert sum(pool.map(reserve, range(33))) == 20
    assert budget.spent == 10.0
