"""The default folder of runs."""

from pathlib import Path


def default_root() -> str:
    """The checkout's folder, or the working directory when the package is installed elsewhere."""
    checkout = Path(__file__).resolve().parents[2]
    return str(checkout if (checkout / "pyproject.toml").is_file() else Path.cwd())
