"""Importer of TF1 Object Detection checkpoints: a folder with `pipeline.config` and `model.ckpt.*`."""

from pathlib import Path

import numpy as np

from tasks.detector.importers.importer import Importer
from tasks.detector.importers.pipeline import CONFIG, read_pipeline, spec_from_pipeline
from tasks.detector.importers.tf1 import detector_of, scopes
from tasks.detector.weights import Detector
from tasks.errors import ModelMistake

_AVERAGE = "/ExponentialMovingAverage"


def _read(folder: Path) -> Detector:
    config = folder / CONFIG
    if not config.is_file():
        raise ModelMistake(f"{folder} is no TF1 checkpoint folder: it has no {CONFIG}")
    pipeline = read_pipeline(config)
    spec = spec_from_pipeline(pipeline, str(config))
    hyperparameters = pipeline.message("model", "ssd", "feature_extractor", "conv_hyperparams")
    epsilon = hyperparameters.message("batch_norm").number("epsilon", 0.001)
    averages = pipeline.message("eval_config").flag("use_moving_averages", False)
    variables = _variables(_prefix(folder), averages)
    places = scopes(variables, str(folder))
    return detector_of(spec, places, variables.get, lambda scope: epsilon, str(folder))


def _prefix(folder: Path) -> Path:
    """Finds the checkpoint: the only one, or the one that the file `checkpoint` names."""
    indexes = sorted(folder.glob("*.index"))
    named = [index for index in indexes if f'"{index.stem}"' in _newest(folder)] or indexes
    if len(named) != 1:
        choices = ", ".join(index.stem for index in indexes) or "none"
        raise ModelMistake(f"{folder} must hold one checkpoint, NAME.index and NAME.data-*; it holds: {choices}")
    prefix = named[0].with_suffix("")
    if not list(folder.glob(f"{prefix.name}.data-*")):
        raise ModelMistake(f"{prefix} has no weights: there is no {prefix.name}.data-00000-of-00001 beside its index")
    return prefix


def _newest(folder: Path) -> str:
    state = folder / "checkpoint"
    lines = state.read_text(errors="replace").splitlines() if state.is_file() else []
    line = next((line for line in lines if line.startswith("model_checkpoint_path:")), "")
    path = line.partition(":")[2].strip().strip('"')
    return f'"{path.rpartition("/")[2]}"'


def _variables(prefix: Path, averages: bool) -> dict[str, np.ndarray]:
    """Reads the variables of the network, averaged over training where evaluation is configured so."""
    import tensorflow as tf

    try:
        reader = tf.train.load_checkpoint(str(prefix))
        names = {name for name in reader.get_variable_to_shape_map() if name.startswith(_SCOPES)}
        averaged = {name for name in names if averages and name + _AVERAGE in names}
        return {name: np.asarray(reader.get_tensor(name + _AVERAGE * (name in averaged))) for name in names}
    except (tf.errors.OpError, RuntimeError, ValueError, IndexError) as error:
        message = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelMistake(f"{prefix} is a damaged or incomplete checkpoint: {message}") from error


_SCOPES = ("FeatureExtractor/", "BoxPredictor_")

IMPORTER = Importer("a folder with a TF1 checkpoint and its pipeline.config", Path.is_dir, _read)
