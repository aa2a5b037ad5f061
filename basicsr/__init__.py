"""BasicSR-KD: knowledge distillation for image restoration, compatible with BasicSR.

Importing this package imports nothing heavy; sub-packages import their members on demand.
"""

from .version import __version__

__all__ = ["__version__"]
