"""Datasets and their loaders: one dataset per ``*_dataset.py``, imported on first use of its name."""

from basicsr.utils.lazy import lazy_members

_names, __getattr__, __dir__ = lazy_members(
    __name__, {"loader": ["build_dataloader", "build_dataset", "worker_init_fn"]}
)

__all__ = list(_names)
