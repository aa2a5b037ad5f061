"""Weights from an http(s) address, kept in torch.hub's cache."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlparse


def load_file_from_url(
    url: str, model_dir: str | None = None, progress: bool = True, file_name: str | None = None
) -> str:
    """Download a file unless it is there already; returns its path.

    Args:
        url: The address.
        model_dir: Folder to keep it in; torch.hub's ``checkpoints`` folder by default.
        progress: Whether to show a progress bar.
        file_name: Name of the local file; the address's last part by default.

    Raises:
        OSError: If it cannot be fetched; nothing is left behind.
    """
    from torch.hub import download_url_to_file, get_dir

    folder = Path(model_dir or os.path.join(get_dir(), "checkpoints"))
    path = (folder / (file_name or Path(urlparse(url).path).name)).absolute()
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            download_url_to_file(url, str(path), hash_prefix=None, progress=progress)  # itself renames when complete
        except OSError as error:
            raise OSError(f"{url} could not be downloaded ({error}); fetch it by hand and give its path") from error
    return str(path)


def local_path(path_or_url: str | os.PathLike) -> Path:
    """The file itself for a path; for an http(s) address, the downloaded copy."""
    text = str(path_or_url)
    if text.startswith(("http://", "https://")):
        return Path(load_file_from_url(text))
    return Path(text).expanduser()
