"""david: Dynamic-Aware Video Distillation (arXiv 2506.02021), reproduced, in the open.

The names below are the public interface; each lives in the file of its idea, and is imported on first use,
so that ``import david`` costs nothing.
"""

from importlib import import_module

_HOMES = {
    "C3D": "c3d", "partition": "temporal", "action_set": "temporal", "QLearner": "qlearning",
    "Settings": "presets", "preset": "presets", "PRESETS": "presets", "load": "datasets", "Clips": "clips",
    "open_clips": "clips", "DistilledSet": "distilled", "RealSet": "distilled", "load_set": "static_dynamic",
    "TeacherReward": "reward", "Distiller": "matching", "learn_policy": "search", "accuracy": "evaluate",
    "train_on": "training", "load_teacher": "training", "method": "methods", "ROWS": "methods", "Store": "records",
    "summary": "records", "Experiment": "experiment", "check_parameters": "parameters",
}  # fmt: skip
__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'david' has no attribute {name!r}")
    return getattr(import_module(f"david.{_HOMES[name]}"), name)
