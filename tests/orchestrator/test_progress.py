"""What a person sees while a sweep runs."""

import io

import pytest
from rich.console import Console

from orchestrator.progress import LiveProgress, PlainProgress, ending_of
from tasks.quantize.schemes import Float16
from tasks.types import Accuracy, Failure, Latency, Variant

VARIANT = Variant(Float16())
ACCURACY = Accuracy((0.2302, *[0.0] * 11), {}, 80, 100, "0" * 64, "hotcoco")
LATENCY = Latency(12.5, 13.0, 14.0, 13.1, 0.954, 0.94, 0.96, 1.0, 5.0, 50, True, (), {})
FAILURE = Failure("quantize", "audit_mismatch", "half of it is float")


def _sweep(view):
    view.began(variants=3, settled=1, images=80)
    view.stage("preparing images")
    view.inferred(40)
    view.settled(VARIANT, ACCURACY, LATENCY, None)
    view.inferred(40)
    view.settled(VARIANT, None, None, FAILURE)
    view.close()


def test_an_ending_tells_accuracy_and_latency():
    assert ending_of(VARIANT, ACCURACY, LATENCY, None).endswith("t1: AP 0.2302, 12.50 ms, 0.954 of float32")


def test_an_ending_tells_why_a_variant_failed():
    assert ending_of(VARIANT, None, None, FAILURE).endswith("failed (audit_mismatch): half of it is float")


def test_without_a_terminal_each_thing_is_a_line_with_the_time_and_what_is_left(capsys):
    _sweep(PlainProgress())
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert lines[0].endswith("3 variants on 80 images each, 1 of them known already")
    assert "2/3 litert-float16" in lines[2]
    assert "s left" in lines[2]
    assert lines[3].endswith("done")


def test_on_a_terminal_endings_scroll_by_above_a_bar_with_the_rate():
    stream = io.StringIO()
    _sweep(LiveProgress(Console(file=stream, force_terminal=True, width=160)))
    shown = stream.getvalue()
    assert "AP 0.2302" in shown
    assert "audit_mismatch" in shown
    assert "images/s" in shown
    assert "3/3" in shown


@pytest.mark.parametrize("settled", [0, 3])
def test_a_view_that_is_closed_early_leaves_no_bar_running(settled):
    view = LiveProgress(Console(file=io.StringIO(), force_terminal=True))
    view.began(variants=3, settled=settled, images=80)
    view.close()
    assert not view._progress.live.is_started
