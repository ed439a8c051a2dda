import pytest

from orchestrator.search.stops import Spent, StopRules

NOTHING = Spent(trials=0, seconds=0.0, images=0, since_best=0)
LIMITS = {"trials": 5, "seconds": 60.0, "images": 1000}


def test_without_rules_nothing_ends_a_search():
    spent = Spent(10**6, 1e9, 10**9, 10**6)

    assert StopRules().why_no_more(spent) is None
    assert StopRules().why_at_once(spent) is None


@pytest.mark.parametrize("name", LIMITS)
def test_a_search_asks_for_no_more_once_a_limit_is_reached(name):
    rules = StopRules(**{name: LIMITS[name]})
    below, reached = ({**vars(NOTHING), name: LIMITS[name] - less} for less in (1, 0))

    assert rules.why_no_more(Spent(**below)) is None
    assert f"{LIMITS[name]:g}" in rules.why_no_more(Spent(**reached))


@pytest.mark.parametrize(("name", "gives_up"), [("trials", False), ("seconds", True), ("images", True)])
def test_only_time_and_images_give_up_what_is_in_flight(name, gives_up):
    reached = Spent(**{**vars(NOTHING), name: LIMITS[name]})

    assert (StopRules(**{name: LIMITS[name]}).why_at_once(reached) is not None) == gives_up


def test_patience_ends_asking_and_gives_up_nothing():
    rules, spent = StopRules(patience=3), Spent(9, 1.0, 80, since_best=3)

    assert rules.why_no_more(spent) == "no better feasible variant in 3 verdicts"
    assert rules.why_at_once(spent) is None
    assert rules.why_no_more(Spent(9, 1.0, 80, since_best=2)) is None
