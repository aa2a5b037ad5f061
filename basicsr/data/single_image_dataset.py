"""LQ images without ground truth."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from torch.utils.data import Dataset

from basicsr.utils.options import sections
from basicsr.utils.registry import DATASET_REGISTRY

from .image_folders import Folders, image_paths
from .storage import ImageStorage
from .to_tensor import ToTensor


@DATASET_REGISTRY.register()
class SingleImageDataset(Dataset):
    """Whole LQ images, to run a network on.

    They come from the database with ``io_backend: {type: lmdb}``, else from ``meta_info_file`` where it is given, else
    from the folder (of files, or of decoded images with ``io_backend: {type: memmap}``), or from several.

    Args:
        opt: The dataset's section; see :class:`Options`.

    Attributes:
        opt: The section.
        paths: The files, or keys of the database.
        io_backend_opt, mean, std: What the section says, as BasicSR's plug-ins read it.
        file_client: None; a plug-in's own ``__getitem__`` makes one from ``io_backend_opt``.
        lq_folder: The folder, database or storage.

    Raises:
        ValueError: If there are no images, or listed ones are missing.
        FileNotFoundError: If the folder or the meta_info file does not exist.
    """

    class Options(sections.DatasetOptions):
        unread: ClassVar[tuple[str, ...]] = ("filename_tmpl", "lq_size", "use_hflip", "use_rot")
        dataroot_lq: Folders
        """Folder, LMDB or decoded storage of the images, or a list of them."""
        meta_info_file: str | None = None
        """Lists the images to use, but not with LMDB; all of the folder when absent."""
        color: Literal["y", "n"] | None = None
        """`y`: luma (BT.601, 16-235) as the only channel; RGB for `n` or when absent."""

    def __init__(self, opt: dict[str, Any]) -> None:
        self.opt, options = opt, self.Options.of(opt)
        folder = opt["dataroot_lq"]
        self._storage = ImageStorage(options.io_backend, {"lq": folder})
        self._to_tensor = ToTensor(options.color == "y", options.mean, options.std)
        self.lq_folder = folder
        self.io_backend_opt = self._storage.client_options()
        self.file_client = None
        self.mean, self.std = options.mean, options.std
        self.paths = image_paths(folder, self.io_backend_opt["type"], options.meta_info_file)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """An image.

        Returns:
            ``lq`` (C, H, W), RGB in [0, 1] before normalisation, and ``lq_path``, as in ``paths``.

        Raises:
            ValueError: If the image is damaged; the message names it.
        """
        path = self.paths[index]
        return {"lq": self._to_tensor(self._storage.read(path, "lq")), "lq_path": path}
