import numpy as np
import pytest
from skimage import color

from basicsr.metrics.metric_util import reorder_image, to_y_channel


def test_reorder():
    img = np.zeros((2, 3, 4))
    assert reorder_image(img).shape == (2, 3, 4)
    assert reorder_image(img, "CHW").shape == (3, 4, 2)
    assert reorder_image(img[..., 0]).shape == reorder_image(img[..., 0], "CHW").shape == (2, 3, 1)
    with pytest.raises(ValueError, match="input_order must be HWC or CHW, not WHC"):
        reorder_image(img, "WHC")
    with pytest.raises(ValueError, match=r"two or three dimensions, not the shape \(1, 2, 3, 4\)"):
        reorder_image(img[None])


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_luma(dtype):
    bgr = np.random.default_rng(0).integers(0, 256, (5, 6, 3)).astype(dtype)
    luma = to_y_channel(bgr)
    assert luma.shape == (5, 6, 1)
    assert luma.dtype == np.float64
    np.testing.assert_allclose(luma[..., 0], color.rgb2ycbcr(bgr[..., ::-1] / 255.0)[..., 0], atol=1e-10)


def test_luma_of_grey_is_grey():
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)
    assert np.array_equal(to_y_channel(grey), grey)
