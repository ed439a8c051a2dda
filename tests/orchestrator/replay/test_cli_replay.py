import json
import re

import pytest
from typer.testing import CliRunner

from orchestrator.cli.main import app
from tasks.errors import UserMistake
from tests.orchestrator.replay.recorded import IMAGES


def replayed(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["replay", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_table_has_a_row_for_each_strategy(database):
    printed = replayed(str(database), "--strategies", "exhaustive,find_best,random", "--seeds", "2")

    assert "squares: 8 variants with 6 latencies, the 40 images of squares, AP loss <= 0.1, 2 seeds" in printed
    assert [line.split()[0] for line in printed.splitlines()[2:]] == ["exhaustive", "find_best", "random"]
    assert re.search(r"exhaustive +100 % +100 % +0\.00 % +85\.7 %", printed)
    assert max(map(len, printed.splitlines())) <= 120


def test_json_has_every_search(database):
    found = json.loads(
        replayed(str(database), "--strategies", "find_best", "--seeds", "3", "--images", "100", "--json")
    )

    assert (found["images"], found["table_images"], found["is_resampled"]) == (100, IMAGES, True)
    assert [run["seed"] for run in found["runs"]] == [0, 1, 2]
    assert found["strategies"][0]["optimum_share"] == 1.0


def test_another_budget_changes_the_winner(database):
    found = json.loads(
        replayed(str(database), "--strategies", "find_best", "--seeds", "1", "--max-loss", "1", "--relative", "--json")
    )

    assert found["budget"] == {
        "metric": "AP", "limit": 1.0, "is_relative": True, "text": "AP loss <= 1 of the reference's",
    }  # fmt: skip
    assert "per_tensor" in found["runs"][0]["found"]


def test_the_plot_needs_no_network(database, tmp_path):
    replayed(str(database), "--strategies", "find_best,random", "--seeds", "2", "--plot", str(tmp_path / "plot.html"))

    page = (tmp_path / "plot.html").read_text()
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", page)
    assert "find_best: 2 of 2" in page


def test_the_strategies_can_be_listed():
    assert {"exhaustive", "tpe_unconstrained", "gp-no-stops"} <= set(replayed("--strategies", "list").split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--strategies", "tpo"], "no strategy 'tpo'"),
        (["--strategies", ","], "--strategies names none"),
        (["--metric", "AP50"], "give --max-loss, too"),
        (["--error-rate", "0.7"], "--error-rate is 0.7"),
        (["--plot", "nowhere/plot.html"], "the folder nowhere does not exist"),
        (["--sweep", "nothing"], "there is no sweep 'nothing'"),
    ],
)
def test_mistakes_are_named(database, arguments, message):
    result = CliRunner().invoke(app, ["replay", str(database), *arguments])

    assert isinstance(result.exception, UserMistake)
    assert message in str(result.exception)
