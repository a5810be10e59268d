"""Off a terminal a long step says once a minute how far it is; on one it draws a bar."""

import io
import logging
import sys

import pytest

from safety_spaces import progress as module
from safety_spaces.progress import MINUTE, Progress, progress, say


class Clock:
    """A wait that ends at once, `minutes` times, and then says that the step is over."""

    def __init__(self, minutes: int) -> None:
        self.left, self.waited = minutes, []

    def __call__(self, seconds: float) -> bool:
        self.waited.append(seconds)
        self.left -= 1
        return self.left < 0


@pytest.fixture
def said(monkeypatch, caplog):
    """The lines of a step off a terminal, whose own thread is not started: the test says when a minute has passed."""
    monkeypatch.setattr(module.threading.Thread, "start", lambda self: None)
    caplog.set_level(logging.INFO, logger="safety_spaces")
    return lambda: [record.getMessage() for record in caplog.records]


def test_a_line_a_minute_says_done_total_time_left_and_dollars(said):
    now = [0.0]
    with progress(range(8), desc="scores, seed 0", note=lambda: f"{now[0] / 1000:.2f} US dollars so far") as bar:
        bar._time = lambda: now[0]
        bar.start_t = bar.last_print_t = 0.0
        for number in bar:
            now[0] += 600
            if number == 2:
                say(bar, Clock(2))
    # Two of eight are done when the third has run for its ten minutes: 30 minutes for two, 90 for six.
    line = "scores, seed 0: 2 of 8 done, 30:00 so far, about 1:30:00 left, 1.80 US dollars so far"
    assert said() == [line, line]


def test_a_step_that_has_not_done_anything_says_that_it_is_alive(said):
    clock = Clock(1)
    with progress(desc="answers, seed 0", total=100) as bar:
        say(bar, clock)
    assert said() == ["answers, seed 0: 0 of 100 done, 00:00 so far, about ? left"]
    assert clock.waited == [MINUTE, MINUTE]


def test_what_an_earlier_process_did_took_no_time_of_this_one(said):
    with progress(desc="train useful") as bar:
        now = bar.start_t + 100
        bar._time = lambda: now
        bar.reset(total=30)
        bar.n = bar.initial = 20
        bar.start_t = now - 100
        bar.update(5)
        say(bar, Clock(1))
    assert said() == ["train useful: 25 of 30 done, 01:40 so far, about 01:40 left"]


def test_an_inner_step_and_one_of_another_process_are_quiet(said, capsys):
    started = []
    module.threading.Thread.start = lambda self: started.append(self)
    assert list(progress([1, 2], desc="inner", inner=True)) == [1, 2]
    assert list(progress([1, 2], desc="other", shown=False)) == [1, 2]
    assert started == []
    assert list(progress([1, 2], desc="outer")) == [1, 2]
    assert len(started) == 1
    assert capsys.readouterr().err == ""


def test_a_closed_step_stops_its_thread():
    bar = progress([1], desc="step")
    assert not bar._closed.is_set()
    list(bar)
    assert bar._closed.is_set()


def test_on_a_terminal_a_bar_is_drawn_and_nothing_is_said(said, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    bar = progress(range(3), desc="answers", note=lambda: "1.00 US dollars so far")
    assert type(bar) is Progress
    assert list(bar) == [0, 1, 2]
    assert "answers: 100%" in terminal.getvalue()
    assert "1.00 US dollars so far" in terminal.getvalue()
    assert said() == []
