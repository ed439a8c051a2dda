"""Where Optuna keeps its studies: in its own tables beside ours, so that optuna-dashboard opens them."""

import sqlite3
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from results.connect import mistake_of, name_of, open_unchecked
from tasks.errors import DatabaseMistake

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

    from orchestrator.search.optuna_study import OptunaStudy

_BUSY_SECONDS = 30
_POSTGRESQL = {
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
    "application_name": "quantsweep-optuna",
}


def open_study(
    url: str | None, name: str, sampler: str = "tpe", seed: int = 0, objectives: Sequence[str] = ("latency",)
) -> "OptunaStudy":
    """Opens a study, which is made if there is none of that name.

    Optuna's logging is set to warnings, its chatter about each trial is of no use here.

    Args:
        url: The database as in `results.connect.open_database`; None for one in memory.
        name: Name of the study.
        sampler: Who proposes, a key of `orchestrator.search.samplers.SAMPLERS`.
        seed: Seed of the sampler; a later run of a study goes on with another one that follows from it.
        objectives: What is made small, keys of `orchestrator.search.objectives.VALUES`.

    Returns:
        The study.

    Raises:
        DatabaseMistake: If the database cannot be reached or written, its tables are those of another Optuna, or the
            study has other objectives.
        SpecMistake: If the sampler cannot be had.
    """
    import optuna

    from orchestrator.search.optuna_study import OptunaStudy

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.InMemoryStorage() if url is None else _storage(url)
    directions = [optuna.study.StudyDirection.MINIMIZE] * len(objectives)
    optuna.create_study(study_name=name, storage=storage, directions=directions, load_if_exists=True)
    study = OptunaStudy(name, storage, sampler, seed, tuple(objectives))
    if study.metric_names is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(list(objectives))
    elif study.metric_names != list(objectives):
        raise DatabaseMistake(
            f"the study {name} makes {', '.join(study.metric_names)} small, and not {', '.join(objectives)}; give the "
            "new one another name"
        )
    return study


def _storage(url: str) -> "BaseStorage":
    from optuna.storages import RDBStorage

    engine = open_unchecked(url, create=True)
    try:
        return RDBStorage(*_address(engine))
    except DBAPIError as error:
        raise mistake_of(engine, error) from error
    except RuntimeError as error:
        raise DatabaseMistake(
            f"the studies in {name_of(engine)} are of another version of Optuna; back it up, then run: optuna storage "
            "upgrade --storage URL"
        ) from error
    finally:
        engine.dispose()


def _address(engine: Engine) -> tuple[str, dict[str, Any]]:
    """Returns the URL and the arguments of `create_engine` for Optuna's own engine on the same database."""
    if engine.dialect.name != "sqlite":
        return (
            engine.url.render_as_string(hide_password=False),
            {"pool_pre_ping": True, "connect_args": _POSTGRESQL},
        )
    path = name_of(engine)

    def connect() -> sqlite3.Connection:
        # Optuna's transactions take the write lock at their first write and wait for it, as ours do.
        connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level="IMMEDIATE", check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        return connection

    return f"sqlite:///{path}", {"creator": connect}
