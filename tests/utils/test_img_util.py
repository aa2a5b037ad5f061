import os

import cv2
import numpy as np
import pytest
import torch

from basicsr.utils.img_util import crop_border, imfrombytes, img2tensor, imread, imwrite, tensor2img


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)


def encode(img: np.ndarray, extension: str = ".png") -> bytes:
    return cv2.imencode(extension, img)[1].tobytes()


class TestToTensor:
    def test_bgr_rows_become_rgb_planes(self):
        img = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
        tensor = img2tensor(img)
        assert tensor.shape == (3, 2, 3)
        assert tensor.dtype == torch.float32
        assert tensor.is_contiguous()
        for channel in range(3):
            assert tensor[channel].tolist() == img[..., 2 - channel].tolist()

    def test_options(self, picture):
        assert np.array_equal(img2tensor(picture, bgr2rgb=False).numpy(), picture.transpose(2, 0, 1))
        assert img2tensor(picture, float32=False).dtype == torch.uint8
        assert img2tensor(picture.astype(np.float64)).dtype == torch.float32
        assert img2tensor(picture.astype(np.float64), float32=False).dtype == torch.float64

    def test_grey_and_lists(self, picture):
        grey, colour = img2tensor([picture[..., 0], picture])
        assert grey.shape == (1, 7, 9)
        assert colour.shape == (3, 7, 9)
        assert img2tensor(picture[..., :1]).shape == (1, 7, 9)

    def test_does_not_share_memory(self, picture):
        source = np.zeros((2, 2, 1), np.float32)
        img2tensor(source).fill_(1)
        assert not source.any()

    def test_other_shapes_are_refused(self):
        with pytest.raises(ValueError, match=r"\(H, W, C\) or \(H, W\), not \(1, 2, 3, 3\)"):
            img2tensor(np.zeros((1, 2, 3, 3)))


class TestToImage:
    def test_clamps_scales_and_rounds(self):
        tensor = torch.tensor([[-0.5, 0.0, 0.499 / 255], [0.501 / 255, 254.6 / 255, 1.5]])
        assert tensor2img(tensor).tolist() == [[0, 0, 0], [1, 255, 255]]
        assert tensor2img(tensor * 2 - 1, min_max=(-1, 1)).tolist() == [[0, 0, 0], [1, 255, 255]]
        assert tensor[0, 0] == -0.5, "the tensor itself must not be clamped"

    def test_inverts_img2tensor(self, picture):
        assert np.array_equal(tensor2img(img2tensor(picture) / 255), picture)
        assert np.array_equal(tensor2img((img2tensor(picture) / 255).half()), picture)
        assert np.array_equal(tensor2img(img2tensor(picture, bgr2rgb=False)[None] / 255, rgb2bgr=False), picture)

    def test_one_channel_becomes_two_dimensions(self):
        for shape in ((4, 5), (1, 4, 5), (1, 1, 4, 5)):
            assert tensor2img(torch.rand(shape)).shape == (4, 5)

    def test_floats_stay_in_the_unit_range(self):
        img = tensor2img(torch.full((3, 2, 2), 3.0), out_type=np.float32, min_max=(0, 4))
        assert img.dtype == np.float32
        assert (img == 0.75).all()

    def test_lists(self):
        assert [img.shape for img in tensor2img([torch.rand(3, 2, 4), torch.rand(2, 2)])] == [(2, 4, 3), (2, 2)]
        assert tensor2img([torch.rand(3, 2, 4)]).shape == (2, 4, 3)

    def test_a_batch_becomes_a_grid(self):
        batch = torch.stack([torch.full((3, 4, 6), (i + 1) / 5) for i in range(5)])
        img = tensor2img(batch)
        assert img.shape == (3 * (4 + 2) + 2, 2 * (6 + 2) + 2, 3)
        expected = np.zeros_like(img)
        for i in range(5):
            top, left = 2 + (i // 2) * 6, 2 + (i % 2) * 8
            expected[top : top + 4, left : left + 6] = 51 * (i + 1)
        assert np.array_equal(img, expected)

    def test_what_is_no_image_is_refused(self):
        with pytest.raises(ValueError, match="a list of tensors is expected, not ndarray"):
            tensor2img(np.zeros((2, 2)))
        with pytest.raises(ValueError, match=r"\(H, W\), not \(5,\)"):
            tensor2img(torch.rand(5))
        with pytest.raises(ValueError, match="np.uint8 or a floating type, not uint16"):
            tensor2img(torch.rand(3, 2, 2), out_type=np.uint16)


class TestDecoding:
    def test_flags(self, picture):
        alpha = np.dstack([picture, picture[..., :1]])
        assert np.array_equal(imfrombytes(encode(picture)), picture)
        assert imfrombytes(encode(picture[..., 0])).shape == (7, 9, 3)
        assert imfrombytes(encode(alpha)).shape == (7, 9, 3)
        assert np.array_equal(imfrombytes(encode(picture[..., 0]), flag="grayscale"), picture[..., 0])
        assert np.array_equal(imfrombytes(encode(alpha), flag="unchanged"), alpha)

    def test_float32_divides_by_the_depth(self, picture):
        img = imfrombytes(encode(picture), float32=True)
        assert img.dtype == np.float32
        assert np.array_equal(img, picture.astype(np.float32) / 255)

    @pytest.mark.parametrize("flag", ["color", "unchanged"])
    def test_16_bits_keep_their_depth_in_floats(self, flag):
        deep = np.random.default_rng(1).integers(0, 65536, (5, 6, 3)).astype(np.uint16)
        img = imfrombytes(encode(deep), flag=flag, float32=True)
        assert np.array_equal(img, deep.astype(np.float32) / 65535)
        assert imfrombytes(encode(deep)).dtype == np.uint8
        assert imfrombytes(encode(deep), flag="unchanged").dtype == np.uint16

    def test_damage_is_an_error(self, picture):
        whole = encode(picture)
        for content in (b"", b"no image", whole[: len(whole) // 2]):
            with pytest.raises(ValueError, match=f"{len(content)} bytes cannot be decoded as an image"):
                imfrombytes(content)

    def test_unknown_flag(self, picture):
        with pytest.raises(ValueError, match="unknown flag 'colour'.*color, grayscale, unchanged"):
            imfrombytes(encode(picture), flag="colour")

    def test_imread_takes_any_name_and_names_the_file(self, picture, tmp_path):
        path = tmp_path / "größe 图.png"
        path.write_bytes(encode(picture))
        assert np.array_equal(imread(path), picture)
        assert np.array_equal(imread(str(path), float32=True), picture.astype(np.float32) / 255)
        path.write_bytes(b"damaged")
        with pytest.raises(ValueError, match="cannot read the image .*größe 图.png: 7 bytes"):
            imread(path)
        with pytest.raises(OSError, match="absent.png"):
            imread(tmp_path / "absent.png")


class TestWriting:
    def test_writes_in_new_folders_and_replaces(self, picture, tmp_path):
        path = tmp_path / "a" / "b" / "größe.png"
        imwrite(np.zeros_like(picture), path)
        imwrite(picture, str(path))
        assert np.array_equal(imread(path), picture)
        assert os.listdir(path.parent) == ["größe.png"]

    def test_encoder_settings_are_used(self, tmp_path):
        img = np.zeros((64, 64, 3), np.uint8)
        imwrite(img, tmp_path / "raw.png", params=[cv2.IMWRITE_PNG_COMPRESSION, 0])
        imwrite(img, tmp_path / "small.png", params=[cv2.IMWRITE_PNG_COMPRESSION, 9])
        assert (tmp_path / "raw.png").stat().st_size > 64 * 64 * 3 > (tmp_path / "small.png").stat().st_size

    def test_without_auto_mkdir_a_missing_folder_is_an_error(self, picture, tmp_path):
        with pytest.raises(OSError, match="cannot write the image .*a.png: No such file"):
            imwrite(picture, tmp_path / "missing" / "a.png", auto_mkdir=False)

    def test_a_folder_that_is_a_file_is_an_error(self, picture, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(OSError, match="cannot write the image .*a.png"):
            imwrite(picture, tmp_path / "file" / "a.png")

    def test_what_cannot_be_encoded_is_an_error(self, picture, tmp_path):
        with pytest.raises(OSError, match="cannot write the image .*a.unknown"):
            imwrite(picture, tmp_path / "a.unknown")
        with pytest.raises(OSError, match="cannot write the image .*a.png"):
            imwrite(np.zeros((0, 0, 3), np.uint8), tmp_path / "a.png")
        assert os.listdir(tmp_path) == []

    def test_a_failure_keeps_the_old_file_and_leaves_nothing(self, picture, tmp_path, monkeypatch):
        path = tmp_path / "a.png"
        imwrite(picture, path)

        def full_disk(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "replace", full_disk)
        with pytest.raises(OSError, match="cannot write the image .*a.png: No space left"):
            imwrite(picture // 2, path)
        assert np.array_equal(imread(path), picture)
        assert os.listdir(tmp_path) == ["a.png"]


class TestCropBorder:
    def test_crops_all_sides(self, picture):
        assert np.array_equal(crop_border(picture, 2), picture[2:5, 2:7])
        assert [img.shape for img in crop_border([picture, picture[..., 0]], 3)] == [(1, 3, 3), (1, 3)]
        assert crop_border(picture, 0).shape == picture.shape

    @pytest.mark.parametrize("border", [-1, 4])
    def test_nothing_left(self, picture, border):
        with pytest.raises(ValueError, match=f"crop_border {border} leaves nothing of an image of 7×9"):
            crop_border(picture, border)
