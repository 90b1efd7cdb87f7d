"""Files that a user names: pipes, devices, folders, endless and damaged files are one line and no wait."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from closerlook_common.errors import UserError
from closerlook_common.input_files import (
    MissingFileError,
    is_lfs_pointer,
    read_json_file,
    read_text_file,
    require_regular_file,
)

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"


def make_pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe")
    return folder / "pipe"


def make_link_to_device(folder: Path) -> Path:
    (folder / "link").symlink_to("/dev/zero")
    return folder / "link"


def make_text(raw: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "text").write_bytes(raw)
        return folder / "text"

    return make


@pytest.mark.parametrize(
    ("make", "printed"),
    [
        (make_pipe, "is a pipe; name a file"),
        (make_link_to_device, "is a device; name a file"),
        (lambda folder: Path("/dev/zero"), "is a device; name a file"),
        (lambda folder: Path("/dev/null"), "is a device; name a file"),
        (lambda folder: folder, "is a folder; name a file"),
        (lambda folder: folder / "gone", "cannot be read: no such file"),
        (lambda folder: folder / "a\0b", "embedded null"),
        (lambda folder: folder / ("x" * 300), "cannot be read: File name too long"),
        (make_text(b"x" * 2000), "is larger than"),
        (make_text(b"\xff\xfe"), "is not UTF-8 text"),
    ],
)
def test_what_is_no_text_file_is_one_line(make: Callable[[Path], Path], printed: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read_text_file(make(tmp_path), "model list", limit=1000)
    assert printed in str(caught.value)
    assert str(caught.value).startswith("model list ")
    assert "\n" not in str(caught.value)


def test_text_is_read_without_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"\xef\xbb\xbfa\r\nb")
    assert read_text_file(tmp_path / "text", "list") == "a\nb"
    with pytest.raises(MissingFileError):
        require_regular_file(tmp_path / "gone", "list")
    assert require_regular_file(tmp_path / "text", "list") == tmp_path / "text"


def test_a_pipe_that_the_shell_opened_is_read() -> None:
    """``extract --model-list <(grep vit models.txt)``."""
    end, begin = os.pipe()
    writer = threading.Thread(target=lambda: (os.write(begin, b"abc\n" * 1000), os.close(begin)))
    writer.start()
    try:
        assert read_text_file(f"/dev/fd/{end}", "model list") == "abc\n" * 1000
    finally:
        writer.join()
        os.close(end)


@pytest.mark.parametrize("read", [read_text_file, read_json_file, require_regular_file])
def test_a_git_lfs_pointer_is_named_whatever_is_read(read: Callable[..., object], tmp_path: Path) -> None:
    path = make_text(POINTER)(tmp_path)
    with pytest.raises(UserError, match=r"^configuration .* is a Git LFS pointer, .*'git lfs pull'"):
        read(path, "configuration")


def test_a_pointer_is_known_by_its_beginning_and_size(tmp_path: Path) -> None:
    assert is_lfs_pointer(make_text(POINTER)(tmp_path))
    assert is_lfs_pointer(POINTER)
    assert not is_lfs_pointer(make_text(POINTER + b"x" * 2000)(tmp_path))
    assert not any(is_lfs_pointer(path) for path in (tmp_path, tmp_path / "gone", Path("/dev/zero")))


@pytest.mark.parametrize(
    ("raw", "printed"),
    [
        (b"", "is empty"),
        (b"[" * 200_000, "is nested too deeply"),
        (b"[NaN]", "holds NaN, which is not JSON"),
        (b"[-Infinity]", "holds -Infinity, which is not JSON"),
        (b"1" * 10_000, "is not JSON: Exceeds the limit"),
        (b"{", "is not JSON: Expecting property name"),
    ],
)
def test_json_that_cannot_be_read_is_one_line(raw: bytes, printed: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read_json_file(make_text(raw)(tmp_path), "configuration")
    assert printed in str(caught.value)
    assert "\n" not in str(caught.value)


def test_json_is_read_without_a_byte_order_mark(tmp_path: Path) -> None:
    assert read_json_file(make_text(b'\xef\xbb\xbf{"a": 1}')(tmp_path), "configuration") == {"a": 1}
