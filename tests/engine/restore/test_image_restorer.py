import io

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from basicsr.archs.size_requirement import SizeRequirement
from basicsr.engine.restore.image_restorer import ImageRestorer, read_image
from basicsr.engine.restore.restorer import Restorer, RestoreSettings
from basicsr.utils.img_util import imwrite


class Nearest(nn.Upsample):
    """Repeats pixels, for images of a number of channels."""

    def __init__(self, channels=3, scale=2):
        super().__init__(scale_factor=scale, mode="nearest")
        self.channels = channels

    def forward(self, x):
        if x.shape[1] != self.channels:
            raise RuntimeError(f"expected {self.channels} channels")
        return super().forward(x)


def image(shape, dtype, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


def repeated(img, scale=2):
    return img.repeat(scale, 0).repeat(scale, 1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (4, 7, 3), (1, 9, 3), (5, 3, 4), (33, 34, 4)])
def test_channels_and_depth_come_back_exactly(shape, dtype, channels):
    restorer = ImageRestorer(Restorer(Nearest(channels), RestoreSettings(tile=16)))
    assert (restorer.channels, restorer.scale) == (channels, 2)
    img = image(shape, dtype)
    result = restorer(img)
    assert result.dtype == dtype
    difference = np.abs(result.astype(int) - repeated(img).astype(int)).max()
    assert difference == 0, "tiles, luma of a grey image, and rounding change nothing"


def test_colours_reach_the_network_as_rgb():
    class Red(nn.Module):
        def forward(self, x):
            return x * torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)

    img = image((2, 2, 3), np.uint8)
    assert (ImageRestorer(Restorer(Red()))(img) == img * np.array([0, 0, 1], np.uint8)).all()  # BGR


def test_a_grey_image_through_a_colour_network_keeps_its_luma():
    class Tint(nn.Module):
        def forward(self, x):
            return x * torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1)

    img = np.full((2, 2), 200, np.uint8)
    assert (ImageRestorer(Restorer(Tint()))(img) == round(200 * (0.299 + 0.587 * 0.5))).all()


def test_floats_and_out_of_range_values():
    class Stretch(nn.Module):
        def forward(self, x):
            return 3 * x - 1

    restorer = ImageRestorer(Restorer(Stretch()))
    img = np.array([[0.0, 0.5], [0.75, 1.0]], np.float32)
    np.testing.assert_allclose(restorer(img), [[0, 0.5], [1, 1]], atol=1e-6)
    assert restorer(np.array([[0, 255]], np.uint8)).tolist() == [[0, 255]]


def test_constant_alpha_stays_whatever_the_network_does():
    class Darker(nn.Upsample):
        def forward(self, x):
            return super().forward(x) * 0.9

    img = image((4, 5, 4), np.uint8)
    img[..., 3] = 255
    assert (ImageRestorer(Restorer(Darker(scale_factor=2)))(img)[..., 3] == 255).all()


def test_a_network_with_a_minimum_size_is_tried_out_on_it():
    class Picky(Nearest):
        size_requirement = SizeRequirement(multiple_of=4, minimum=50)

        def forward(self, x):
            assert min(x.shape[-2:]) >= 50
            return super().forward(x)

    assert ImageRestorer(Restorer(Picky()))(image((3, 5, 3), np.uint8)).shape == (6, 10, 3)


def test_networks_that_restore_no_pictures_are_refused():
    with pytest.raises(ValueError, match=r"Nearest takes neither 3 channels \(expected 5 channels\) nor 1"):
        ImageRestorer(Restorer(Nearest(5)))
    with pytest.raises(ValueError, match="Conv2d turns an image of 3 channels into one of 8"):
        ImageRestorer(Restorer(nn.Conv2d(3, 8, 3, padding=1)))


@pytest.mark.parametrize(
    ("img", "message"),
    [
        (np.zeros((2, 2), np.int32), "8 or 16 bits are restored, and this one holds int32"),
        (np.zeros((2, 2, 2), np.uint8), r"must be \(H, W\), \(H, W, 3\) or \(H, W, 4\), not \(2, 2, 2\)"),
    ],
)
def test_images_of_other_kinds_are_refused(img, message):
    with pytest.raises(ValueError, match=message):
        ImageRestorer(Restorer(Nearest()))(img)


def test_an_output_that_is_not_finite_is_refused():
    class Broken(nn.Module):
        def forward(self, x):
            return x / 0

    with pytest.raises(ValueError, match="NaN or infinite"):
        ImageRestorer(Restorer(Broken()))(image((2, 2, 3), np.uint8))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 3), (3, 5, 4)])
def test_files_are_read_as_they_are(tmp_path, shape, dtype):
    img = image(shape, dtype)
    imwrite(img, tmp_path / "ü.x.png")
    result = read_image(tmp_path / "ü.x.png")
    assert result.dtype == dtype
    assert (result == img).all()


def test_photos_are_read_upright(tmp_path):
    """Orientation 6 of EXIF: the camera was turned, the picture is shown turned by 90 degrees clockwise."""
    rgb = np.zeros((16, 32, 3), np.uint8)
    rgb[:, :16] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(rgb).save(tmp_path / "p.jpg", exif=exif, quality=100)
    result = read_image(tmp_path / "p.jpg")
    assert result.shape == (32, 16, 3)
    assert (result[:16] > 250).all()
    assert (result[16:] < 5).all()


@pytest.mark.parametrize(
    ("through", "mode", "seen"),
    [
        ("L", "1", "L"),
        ("RGB", "L", "L"),
        ("RGB", "P", "RGB"),
        ("RGBA", "P", "RGBA"),
        ("RGBA", "LA", "RGBA"),
        ("RGBA", "RGBA", "RGBA"),
    ],
)
def test_kinds_of_png(tmp_path, through, mode, seen):
    """Against Pillow: black and white, grey, palette without and with transparency, grey with alpha, colour with it."""
    picture = Image.fromarray(image((3, 5, 4), np.uint8)).convert(through).convert(mode)
    picture.save(tmp_path / "p.png")
    expected = np.array(picture.convert(seen))
    if seen != "L":
        expected = cv2.cvtColor(expected, cv2.COLOR_RGB2BGR if seen == "RGB" else cv2.COLOR_RGBA2BGRA)
    result = read_image(tmp_path / "p.png")
    assert result.shape == expected.shape
    assert (result == expected).all()


def test_cmyk_becomes_colour(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "p.jpg", quality=100)
    blue, green, red = read_image(tmp_path / "p.jpg")[4, 4].astype(int)
    assert red > 200
    assert max(blue, green) < 60


def test_files_that_are_no_images_of_8_or_16_bits(tmp_path):
    with pytest.raises(OSError, match=r"absent.png"):
        read_image(tmp_path / "absent.png")
    (tmp_path / "bad.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"bad.png"):
        read_image(tmp_path / "bad.png")
    file = io.BytesIO()
    Image.fromarray(np.full((2, 2), 7, np.float32)).save(file, "tiff")
    (tmp_path / "float.tif").write_bytes(file.getvalue())
    with pytest.raises(ValueError, match=r"float.tif: its pixels, of type float32, reach from 7 to 7"):
        read_image(tmp_path / "float.tif")
