"""What a folder of images may hold, and what may happen to it while it is read: each costs itself, and is reported."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cache_schema
import extract

MODELS = """
timm:test_vit allow_random=yes seed=1 num_classes=3 classes=pets input_size=64 crop_pct=1.0
timm:test_resnet allow_random=yes seed=2 num_classes=3 classes=pets input_size=48 crop_pct=1.0
"""
WORDS = ["--model-list", "models.txt", "--cache", "cache", "--batch-size", "4"]


@pytest.fixture
def copy(tmp_path: Path, pets: Path) -> Path:
    """A study of two models of two geometries over a copy of the pets, which a test may spoil, and the cats."""
    (tmp_path / "models.txt").write_text(MODELS)
    (tmp_path / "datasets.toml").write_text(
        f'[pets]\npath = "copy"\nclass_space = "pets"\n[cats]\npath = "{pets}/cat"\nlabels = "none"\n'
    )
    shutil.copytree(pets, tmp_path / "copy")
    return tmp_path / "copy"


def png(width: int, height: int, depth: int = 8) -> bytes:
    """Return an RGB picture of one colour: of any size a few kilobytes, as attackers make them."""
    packer, line = zlib.compressobj(9), b"\0" + bytes(width * 3 * depth // 8)
    pixels = b"".join([*(packer.compress(line) for _ in range(height)), packer.flush()])

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def add_odd_images(folder: Path) -> None:
    """Add what is unusual and can be read."""
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (40, 60, 3), np.uint8)
    image, exif = Image.fromarray(pixels), Image.Exif()
    exif[0x112] = 6
    image.convert("CMYK").save(folder / "cmyk.jpg")
    image.save(folder / "turned.jpg", exif=exif)
    image.convert("P").save(folder / "palette.png", transparency=bytes(range(256)))
    image.convert("LA").save(folder / "grey-alpha.png")
    image.convert("1").save(folder / "bits.png")
    Image.fromarray(rng.integers(0, 1 << 16, (40, 60), np.uint16)).save(folder / "grey16.png")
    (folder / "rgb16.png").write_bytes(png(60, 40, depth=16))
    frames = [Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)) for _ in range(3)]
    for name in ("moving.gif", "moving.webp"):
        frames[0].save(folder / name, save_all=True, append_images=frames[1:])
    (folder / "png-named.jpg").write_bytes(png(60, 40))
    image.crop((0, 0, 1, 1)).save(folder / "one-pixel.png")
    (folder / "large.png").write_bytes(png(9600, 9600))  # Pillow warns of it and opens it


def add_unreadable(folder: Path) -> dict[str, str]:
    """Add what cannot be read; return part of the reason by name."""
    jpeg = (folder / "0.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (folder / "header.jpg").write_bytes(jpeg[:20])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("<html>404</html>")
    (folder / "zeros.jpg").write_bytes(bytes(1000))
    (folder / "bomb.png").write_bytes(png(30_000, 6_000))
    (folder / "gone.jpg").symlink_to("nowhere.jpg")
    (folder / "round.jpg").symlink_to("round.jpg")
    (folder / "endless.jpg").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as listening:
        short = Path(os.path.relpath(folder))  # such a name holds a hundred letters
        os.chdir(short)
        listening.bind("socket.jpg")
    return {
        "cut.jpg": "truncated", "header.jpg": "not an image", "empty.jpg": "empty", "text.jpg": "not an image",
        "zeros.jpg": "not an image", "bomb.png": "too many pixels", "gone.jpg": "missing", "round.jpg": "symbolic",
        "endless.jpg": "not a file", "pipe.jpg": "not a file", "socket.jpg": "No such device",
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_whatever_lies_there_costs_itself_alone(copy: Path, run_extract, monkeypatch, workers: int) -> None:
    monkeypatch.chdir(copy)  # so that it is undone
    (copy / "fox" / "folder.jpg").mkdir()
    (copy / "fox" / "up").symlink_to("..")
    before = {path.relative_to(copy).as_posix() for path in copy.glob("*/*.jpg") if path.is_file()}
    add_odd_images(copy / "dog")
    reasons = {f"cat/{name}": reason for name, reason in add_unreadable(copy / "cat").items()}
    done = run_extract(*WORDS, "--workers", workers, cwd=copy.parent, code=1)
    for model in ("test_vit", "test_resnet"):
        store = cache_schema.open_cache(copy.parent / "cache").store(model, "pets")
        assert before < set(store.image_ids)
        found = [store.image_ids[row] for row in np.flatnonzero(~store.valid)]
        assert found == sorted(reasons)
        assert np.isnan(store.logits()[~store.valid]).all()
        assert np.isfinite(store.logits()[store.valid]).all()
        assert store.record["n_unreadable"] == len(reasons)
        for printed in store.record["unreadable"]:
            assert reasons[printed["image_id"]] in printed["reason"]
    # Once, though two passes met them, and not again at the end; and no library's warnings beside it.
    assert done.stderr.count("11 images cannot be read (cat/bomb.png: too many pixels") == 1
    assert "4 done, 0 sealed before, 0 skipped, 1 failed" in done.stderr
    assert "Warning" not in done.stderr
    assert "Traceback" not in done.stderr


# ---- the machine, not the image, is at fault: nothing is sealed that would never be fixed


def as_somebody(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run ``extract`` with no more rights than the files give; root has some that no file takes away."""
    drop = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    return subprocess.run(
        [*drop, sys.executable, "-m", "extract", *map(str, words)],
        cwd=cwd, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(extract.__file__).parent.parent), "COLUMNS": "200"},
    )  # fmt: skip


@pytest.mark.slow
def test_an_image_that_may_not_be_read_is_read_once_it_may(copy: Path, run_extract, digests) -> None:
    run_extract(*WORDS[:2], "--cache", "whole", *WORDS[4:], "--workers", 0, cwd=copy.parent)
    (copy / "dog" / "7.jpg").chmod(0)
    done = as_somebody(*WORDS, "--workers", 1, cwd=copy.parent)
    assert done.returncode == 1
    assert "test_vit on pets: dog/7.jpg cannot be read: Permission denied; fix that" in done.stderr
    assert "2 done, 0 sealed before, 0 skipped, 2 failed" in done.stderr
    assert "Traceback" not in done.stderr
    stores = cache_schema.open_cache(copy.parent / "cache").stores("predictions")
    assert {(store.model.id, store.dataset.id) for store in stores} == {("test_vit", "cats"), ("test_resnet", "cats")}
    (copy / "dog" / "7.jpg").chmod(0o644)
    done = as_somebody(*WORDS, "--workers", 1, cwd=copy.parent)
    assert (done.returncode, "2 done, 2 sealed before" in done.stderr) == (0, True)
    assert digests(copy.parent / "cache") == digests(copy.parent / "whole")


@pytest.mark.slow
def test_folders_that_may_not_be_looked_into_are_one_line(copy: Path) -> None:
    closed = copy.parent / "closed"
    closed.mkdir(mode=0)
    (copy / "dog").chmod(0)
    done = as_somebody(*WORDS, "--workers", 0, cwd=copy.parent)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "failed pets" in done.stderr
    assert "dog cannot be read: Permission denied" in done.stderr
    (copy / "dog").chmod(0o755)
    for words in (["--cache", "closed/cache"], ["--dataset", f"pets={closed}/pets", "--cache", "cache"]):
        done = as_somebody("--model-list", "models.txt", *words, "--workers", 0, cwd=copy.parent)
        last = done.stderr.strip().splitlines()[-1]
        assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
        assert last.startswith("extract: ")
        assert "closed" in last
        assert last.rstrip(".").endswith("Permission denied")


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that opens and gives an error")
def test_a_disk_that_gives_errors_stops_the_dataset(copy: Path, run_extract, monkeypatch) -> None:
    monkeypatch.setattr("extract.datasets.base.PAUSES", (0.01, 0.01))
    (copy / "dog" / "7.jpg").unlink()
    (copy / "dog" / "7.jpg").symlink_to("/proc/self/mem")
    done = run_extract(*WORDS, "--workers", 0, cwd=copy.parent, code=1)
    assert "test_vit on pets: dog/7.jpg cannot be read: Input/output error; fix that" in done.stderr
    assert {s.dataset.id for s in cache_schema.open_cache(copy.parent / "cache").stores("predictions")} == {"cats"}


# ---- a dataset that changes while it is read


@pytest.fixture
def meddling(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], list[int]]:
    """Return a function that has something done once a pass over the pets has begun; it counts the rows that passed."""
    from extract.commands.progress import Reporter

    def when_begun(harm: Callable[[], None]) -> list[int]:
        printed, rows = Reporter.__call__, []

        def meddle(self, event) -> None:
            if event.kind == "rows" and event.dataset == "pets":
                if not rows:
                    harm()
                rows.append(event.rows)
            printed(self, event)

        monkeypatch.setattr(Reporter, "__call__", meddle)
        return rows

    return when_begun


def grow(copy: Path) -> None:
    with (copy / "cat" / "0.jpg").open("ab") as file:
        file.write(b"!")


def shrink(copy: Path) -> None:
    (copy / "fox" / "9.jpg").write_bytes(b"")


def lose(copy: Path) -> None:
    (copy / "fox" / "9.jpg").unlink()


def replace(copy: Path) -> None:
    """Another image of the same size, as all uncompressed ones of a size in pixels are."""
    path = copy / "cat" / "0.jpg"
    path.write_bytes(path.read_bytes()[::-1])


def lose_all(copy: Path) -> None:
    copy.rename(copy.with_name("elsewhere"))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (grow, "cat/0.jpg had "),
        (shrink, "fox/9.jpg had "),
        (lose, "fox/9.jpg had "),
        (lose_all, "now has none: it is gone"),
        (replace, "cat/0.jpg was overwritten while the dataset was read"),
    ],
    ids=["a file grew", "a file shrank", "a file went", "all went", "a file was replaced"],
)
def test_a_dataset_that_changes_is_stopped_and_the_others_go_on(
    copy: Path, run_extract, meddling, digests, workers: int, harm: Callable[[Path], None], says: str
) -> None:
    rows = meddling(lambda: harm(copy))
    done = run_extract(*WORDS, "--workers", workers, cwd=copy.parent, code=1)
    assert rows
    assert says in done.stderr
    for model in ("test_vit", "test_resnet"):
        assert f"failed {model} on pets" in done.stderr
    assert "Traceback" not in done.stderr
    kinds = {(kind, dataset) for kind, _, dataset in digests(copy.parent / "cache") if kind == "predictions"}
    assert kinds == {("predictions", "cats")}
    if harm is lose_all and workers == 0:
        assert sum(rows) == 2 * 4  # a batch through two models: it was not read to its end in vain


def test_pixels_of_two_states_are_not_kept(copy: Path, run_extract, meddling, digests) -> None:
    """Their file would have the digest of the dataset, and later runs would take them for its images."""
    words = [*WORDS, "--workers", "0", "--pixel-cache", "pixels"]
    meddling(lambda: replace(copy))
    assert "on pets: cat/0.jpg was overwritten" in run_extract(*words, cwd=copy.parent, code=1).stderr
    kept = {path.name.partition("-")[0] for path in (copy.parent / "pixels").iterdir()}
    assert kept == {"cats"}
    # What it is now is one state again.
    meddling(lambda: None)
    printed = run_extract(*words, cwd=copy.parent, code=1).stderr
    assert "2 done, 2 sealed before" in printed
    assert "failed pets: 1 image cannot be read (cat/0.jpg: not an image of a known format)" in printed


def test_notes_of_kept_pixels_that_say_nothing_mean_that_none_are_kept(copy: Path, run_extract, digests) -> None:
    words = [*WORDS, "--workers", "0", "--pixel-cache", "pixels"]
    run_extract(*words, cwd=copy.parent)
    whole = digests(copy.parent / "cache")
    (copy.parent / "cache").rename(copy.parent / "before")
    for path, text in zip(sorted((copy.parent / "pixels").glob("*.json")), ("{}", "[1]", "", "0"), strict=True):
        path.write_text(text)
    assert "4 done" in run_extract(*words, cwd=copy.parent).stderr
    assert digests(copy.parent / "cache") == whole


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_larger_than_the_dataset_takes_no_more_memory(copy: Path, run_extract, workers: int) -> None:
    """Room for whole batches was taken by every decoding process, 36 TB here."""
    words = ("--model-list", "models.txt", "--cache", "cache", "--batch-size", "1000000000", "--pixel-cache", "pixels")
    printed = run_extract(*words, "--workers", workers, cwd=copy.parent).stderr
    assert "4 done" in printed
    (copy.parent / "cache").rename(copy.parent / "before")
    assert "4 done" in run_extract(*words, "--workers", workers, cwd=copy.parent).stderr  # from kept pixels


def test_that_pixels_cannot_be_kept_is_stated_once(copy: Path, run_extract) -> None:
    (copy.parent / "taken").write_text("")
    words = [*WORDS, "--workers", "0", "--pixel-cache", "taken/pixels"]
    printed = run_extract(*words, cwd=copy.parent).stderr  # four passes
    assert printed.count("decoded pixels cannot be kept in taken/pixels") == 1
    assert "4 done" in printed


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_shards_that_change_stop_too(copy: Path, run_extract, meddling, workers: int) -> None:
    import tarfile

    shards = copy.parent / "shards"
    shards.mkdir()
    for number, name in enumerate(("cat", "dog", "fox")):
        with tarfile.open(shards / f"val-{number:06}.tar", "w") as tar:
            for path in sorted((copy / name).iterdir()):
                tar.add(path, f"{name}{path.stem}.jpg")
    last = shards / "val-000002.tar"
    raw = last.read_bytes()
    sets = ('[pets]\npath = "shards"', '[cats]\npath = "copy/cat"')
    toml = "\n".join(f'{one}\nrole = "ood"\nclasses = "names.txt"' for one in sets)
    (copy.parent / "datasets.toml").write_text(toml)
    (copy.parent / "names.txt").write_text("cat\ndog\nfox\n")
    (copy.parent / "models.txt").write_text(MODELS.replace("classes=pets", "classes=names.txt"))
    meddling(lambda: last.write_bytes(raw[:20_000]))
    done = run_extract(*WORDS, "--workers", workers, cwd=copy.parent, code=1)
    assert "on pets: val-000002.tar was changed after its images were listed" in done.stderr
    assert {s.dataset.id for s in cache_schema.open_cache(copy.parent / "cache").stores("predictions")} == {"cats"}


def test_images_that_were_not_fetched_stop_their_dataset(copy: Path, run_extract) -> None:
    """A store without them would stay as it is once they are fetched."""
    (copy / "dog" / "0.jpg").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    done = run_extract(*WORDS, "--workers", 0, cwd=copy.parent, code=1)
    assert "dog/0.jpg cannot be read: it is a Git LFS pointer, not the file itself: run 'git lfs pull'" in done.stderr
    assert {s.dataset.id for s in cache_schema.open_cache(copy.parent / "cache").stores("predictions")} == {"cats"}
