"""Decoding: what timm's folder reader sees, for every kind of file in test sets, and clear reasons if not."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from extract.datasets import UnreadableImage, decode_rgb
from extract.datasets.images import IMAGE_SUFFIXES, is_image_name

COLOURS = np.random.default_rng(3).integers(0, 256, (7, 9, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def as_timm_reads(data: bytes) -> np.ndarray:
    """Open and convert as timm.data.ImageDataset does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def images() -> dict[str, bytes]:
    rgb = Image.fromarray(COLOURS)
    palette = rgb.quantize(16)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by a quarter
    sixteen = Image.fromarray(np.linspace(0, 65535, 63, dtype=np.uint16).reshape(7, 9))
    return {
        "jpeg": encoded(rgb, "JPEG"),
        "progressive": encoded(rgb, "JPEG", progressive=True),
        "cmyk jpeg": encoded(rgb.convert("CMYK"), "JPEG"),
        "grey jpeg": encoded(rgb.convert("L"), "JPEG"),
        "rotated by exif": encoded(rgb, "JPEG", exif=exif),
        "png": encoded(rgb, "PNG"),
        "palette": encoded(palette, "PNG"),
        "palette, one colour clear": encoded(palette, "PNG", transparency=3),
        "palette, clear by degrees": encoded(palette, "PNG", transparency=bytes(range(0, 256, 16))),
        "rgba": encoded(rgb.convert("RGBA"), "PNG"),
        "grey and alpha": encoded(rgb.convert("LA"), "PNG"),
        "one bit": encoded(rgb.convert("1"), "PNG"),
        "16-bit grey": encoded(sixteen, "PNG"),
        "32-bit float": encoded(rgb.convert("F"), "TIFF"),
        "gif": encoded(palette, "GIF"),
        "bmp": encoded(rgb, "BMP"),
        "webp": encoded(rgb, "WEBP", lossless=True),
        "tiff": encoded(rgb, "TIFF"),
        "tga": encoded(rgb, "TGA"),
        "ppm": encoded(rgb, "PPM"),
        "jpeg 2000": encoded(rgb, "JPEG2000"),
        "1 x 1": encoded(rgb.crop((0, 0, 1, 1)), "PNG"),
    }


@pytest.mark.parametrize("kind", images())
def test_pixels_are_those_of_timm(kind: str) -> None:
    data = images()[kind]
    image = decode_rgb(data)
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), as_timm_reads(data))


def test_exif_rotation_is_ignored() -> None:
    assert decode_rgb(images()["rotated by exif"]).size == (9, 7)


def test_lossless_kinds_give_the_very_colours() -> None:
    for kind in ("png", "rgba", "bmp", "webp", "tiff", "tga", "ppm"):
        np.testing.assert_array_equal(np.asarray(decode_rgb(images()[kind])), COLOURS, err_msg=kind)


def test_timm_reader_agrees_through_a_folder(tmp_path: Path) -> None:
    from timm.data import ImageDataset

    from extract.datasets import DatasetSpec, resolve

    for index, data in enumerate(images().values()):
        (tmp_path / "a").mkdir(exist_ok=True)
        (tmp_path / "a" / f"{index:02}.JPEG").write_bytes(data)  # whatever it is, it is called JPEG
    theirs = ImageDataset(str(tmp_path))
    ours = resolve(DatasetSpec(name="mixed", path=tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for index in range(len(ours)):
            np.testing.assert_array_equal(np.asarray(ours.open(index)), np.asarray(theirs[index][0]))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"not an image at all", "not an image"),
        (encoded(Image.fromarray(COLOURS), "JPEG")[:200], "runcated"),
        (encoded(Image.fromarray(COLOURS), "PNG")[:60], ""),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, ""),
    ],
    ids=["zero bytes", "text", "jpeg cut short", "png cut short", "postscript", "png of zeros"],
)
def test_unreadable_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImage) as caught:
        decode_rgb(data)
    assert str(caught.value).strip()
    assert reason in str(caught.value)


def test_decompression_bombs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(UnreadableImage, match="too many pixels"):
        decode_rgb(images()["png"])


def test_border_crop() -> None:
    np.testing.assert_array_equal(np.asarray(decode_rgb(images()["png"], border_crop=2)), COLOURS[2:-2, 2:-2])
    with pytest.raises(UnreadableImage, match="1x1"):
        decode_rgb(images()["1 x 1"], border_crop=2)


def test_image_names() -> None:
    for name in ("a.JPEG", "a b.PnG", "x.tar.jpg", "a.tif"):
        assert is_image_name(name), name
    for name in ("._a.jpg", ".jpg", "jpg", "a.txt", "Thumbs.db", "a.jpg.part"):
        assert not is_image_name(name), name


def test_suffixes_are_lower_case() -> None:
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in IMAGE_SUFFIXES)
