"""david: Dynamic-Aware Video Distillation (arXiv 2506.02021), reproduced, in the open.

The names below are the public interface; each lives in the file of its idea, and is imported on first use,
so that ``import david`` costs nothing.
"""

from importlib import import_module

_HOMES = {
    "C3D": "c3d", "action_set": "partition", "QLearner": "qlearning", "TeacherReward": "reward",
    "Distiller": "matching", "learn_policy": "algorithm", "accuracy": "training", "train_on": "training",
    "load_teacher": "training", "DistilledSet": "sets", "RealSet": "sets", "load_set": "publish",
    "published": "publish", "join": "sets", "read_images": "sets",
    "load": "data.readers", "Clips": "data.clips", "open_clips": "data.clips",
    "Settings": "runs.settings", "preset": "runs.settings", "PRESETS": "runs.settings", "method": "runs.methods",
    "ROWS": "runs.methods", "Store": "runs.records", "summary": "runs.records", "Experiment": "runs.experiment",
    "open_dataset": "runs.interface", "distill": "runs.interface", "evaluate": "runs.interface",
}  # fmt: skip
__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'david' has no attribute {name!r}")
    return getattr(import_module(f"david.{_HOMES[name]}"), name)
