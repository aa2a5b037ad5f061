"""Restores images as files hold them: colour or grey, with or without alpha, of 8 or 16 bits."""

from __future__ import annotations

import os

import numpy as np
import torch
from torch import Tensor, nn

from basicsr.engine.restore.restorer import Restorer, eval_mode
from basicsr.utils.files import read_file
from basicsr.utils.image_check import INTEGERS
from basicsr.utils.img_util import imfrombytes, img2tensor, imread, tensor2img

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, of R, G, B


class ImageRestorer:
    """Restores NumPy images with a network for colour or for grey ones.

    A network for three channels gets a grey image three times, and the luma of its output is kept. A network for one
    channel gets the channels of a colour image one by one. Alpha is restored like a grey image, unless it is constant.

    Args:
        restorer: Runs the network.

    Attributes:
        channels: The channels that the network takes, 3 or 1, found by a trial run.
        scale: Output side ÷ input side.

    Raises:
        ValueError: If the network takes neither three channels nor one, or gives another number than it takes.
    """

    def __init__(self, restorer: Restorer) -> None:
        self.restorer = restorer
        self.device = next((p.device for p in restorer.net.parameters()), torch.device("cpu"))
        self.channels, self.scale = self._probe(restorer.net)

    @torch.no_grad()
    def _probe(self, net: nn.Module) -> tuple[int, float]:
        side = self.restorer.requirement.round_up(16)
        problems = []
        with eval_mode(net):
            for channels in (3, 1):
                try:
                    output = net(torch.zeros(1, channels, side, side, device=self.device))
                except RuntimeError as error:
                    problems.append(str(error))
                    continue
                if output.shape[1] != channels:
                    raise ValueError(
                        f"{type(net).__name__} turns an image of {channels} channels into one of {output.shape[1]}; "
                        f"to restore pictures the two must be equal"
                    )
                return channels, output.shape[-1] / side
        raise ValueError(f"{type(net).__name__} takes neither 3 channels ({problems[0]}) nor 1 ({problems[1]})")

    def __call__(self, img: np.ndarray) -> np.ndarray:
        """Restore an image.

        Args:
            img: ``(H, W)``, ``(H, W, 3)`` BGR or ``(H, W, 4)`` BGRA, uint8, uint16, or float in [0, 1].

        Returns:
            An image of the same channels and type.

        Raises:
            ValueError: If it is of another type or shape, or the network's output is not finite.
        """
        if img.dtype not in INTEGERS and img.dtype.kind != "f":
            raise ValueError(f"images of 8 or 16 bits are restored, and this one holds {img.dtype}")
        if not (img.ndim == 2 or (img.ndim == 3 and img.shape[2] in (3, 4))):
            raise ValueError(f"an image must be (H, W), (H, W, 3) or (H, W, 4), not {img.shape}")
        top = np.float32(1 if img.dtype.kind == "f" else np.iinfo(img.dtype).max)
        values = img.astype(np.float32) / top
        if img.ndim == 3 and img.shape[2] == 4:
            result = np.dstack([self._restore(values[..., :3]), self._restore_alpha(values[..., 3])])
        else:
            result = self._restore(values)
        return result.astype(img.dtype) if img.dtype.kind == "f" else (result * top).round().astype(img.dtype)

    def _restore(self, img: np.ndarray) -> np.ndarray:
        planes = img2tensor(np.ascontiguousarray(img)).to(self.device)
        if len(planes) == self.channels:
            output = self._run(planes)
        elif len(planes) == 1:
            luma = torch.tensor(LUMA, device=self.device).view(3, 1, 1)
            output = (self._run(planes.expand(3, -1, -1)) * luma).sum(0, keepdim=True)
        else:
            output = torch.cat([self._run(plane[None]) for plane in planes])
        if not output.isfinite().all():
            raise ValueError("the network's output holds NaN or infinite values")
        return tensor2img(output, out_type=np.float32)

    def _run(self, planes: Tensor) -> Tensor:
        return self.restorer(planes[None])[0]

    def _restore_alpha(self, alpha: np.ndarray) -> np.ndarray:
        if alpha.min() == alpha.max():
            height, width = alpha.shape
            return np.full((round(height * self.scale), round(width * self.scale)), alpha[0, 0])
        return self._restore(alpha)


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Read an image file upright, with its alpha, grey if it is grey, in its own depth; floats become 16 bits.

    Returns:
        ``(H, W)``, ``(H, W, 3)`` BGR or ``(H, W, 4)`` BGRA, uint8 or uint16.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is not a complete image, its JPEG data are damaged, or its pixels are not those of an image;
            the message names it.
    """
    stored = imread(path, "unchanged")
    depth = stored.dtype if stored.dtype in INTEGERS else np.dtype(np.uint16)
    values = stored
    if stored.ndim == 2 or stored.shape[2] != 4:
        # Decode again: OpenCV applies the orientation flag only if it may choose the channels.
        values = imfrombytes(read_file(path), "grayscale" if stored.ndim == 2 else "color", float32=True)
    if values.dtype == depth:
        return values
    return (values.clip(0, 1) * np.float32(np.iinfo(depth).max)).round().astype(depth)
