"""Where memory does not suffice batches are halved, and nothing else changes."""

import logging

import pytest
import torch

from safety_spaces.errors import UserError
from safety_spaces.evaluation.memory import halve_until_it_fits, in_batches


class Device:
    """Doubles numbers, a limited count of them at once."""

    def __init__(self, room, error=torch.OutOfMemoryError):
        self.room = room
        self.error = error
        self.asked = []

    def double(self, numbers):
        self.asked.append(len(numbers))
        if len(numbers) > self.room:
            raise self.error("CUDA out of memory. Tried to allocate 3.00 GiB.")
        return [2 * number for number in numbers]


@pytest.mark.parametrize(
    ("room", "asked"),
    [(20, [5, 5, 1]), (5, [5, 5, 1]), (2, [5, 2, 2, 2, 2, 2, 1]), (1, [5, 2] + [1] * 11)],
)
@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError])
def test_the_size_that_worked_is_kept_and_results_stay_in_order(room, asked, error):
    device = Device(room, error)
    assert list(in_batches(range(11), device.double, batch_size=5)) == [2 * number for number in range(11)]
    assert device.asked == asked


def test_nothing_is_asked_about_nothing():
    device = Device(3)
    assert list(in_batches([], device.double, batch_size=2)) == []
    assert device.asked == []


def test_no_room_for_one_prompt_is_an_error_of_one_line():
    with pytest.raises(UserError, match=r"expected room for 1 prompt.*use a larger device") as caught:
        list(in_batches(range(7), Device(0).double, batch_size=6))
    assert "\n" not in str(caught.value)


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    device = Device(2, RuntimeError)
    with pytest.raises(RuntimeError, match="Tried to allocate"):
        list(in_batches(range(7), device.double, batch_size=4))
    assert device.asked == [4]


def test_the_size_that_fits_is_returned_and_the_halving_is_told(caplog):
    def attempt(size):
        if size > 3:
            raise torch.OutOfMemoryError
        return f"done with {size}"

    with caplog.at_level(logging.WARNING, logger="safety_spaces"):
        assert halve_until_it_fits(attempt, 13) == ("done with 3", 3)
    assert [record.getMessage() for record in caplog.records] == [
        "memory does not hold 13 prompts at once: going on with 6",
        "memory does not hold 6 prompts at once: going on with 3",
    ]


def test_what_the_failed_attempt_held_is_gone_before_memory_is_emptied(monkeypatch):
    held, alive = [], []

    class Tensors:
        def __init__(self):
            held.append(1)

        def __del__(self):
            held.pop()

    def attempt(size):
        tensors = Tensors()
        if size > 1:
            raise torch.OutOfMemoryError
        return tensors is None

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: alive.append(len(held)))
    assert halve_until_it_fits(attempt, 2) == (False, 1)
    assert alive == [0]
