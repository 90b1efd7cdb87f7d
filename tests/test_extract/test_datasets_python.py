"""Datasets that are Python objects: the same logits as from files, whatever library the object is of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cache_schema
from closerlook_common.errors import UserError
from extract.datasets import DatasetSpec, resolve
from extract.datasets.python_data import image_bytes, parts

MODEL = "timm:test_vit allow_random=yes num_classes=3 classes=pets input_size=64 id=m seed=1"

FILE = """
import numpy as np
from pathlib import Path
from PIL import Image
from torchvision.datasets import ImageFolder

ROOT = Path({root!r})

def folder():
    return ImageFolder(ROOT)

def face():
    import datasets
    names = sorted(p.name for p in ROOT.iterdir())
    files = sorted(ROOT.rglob("*.jpg"), key=lambda p: (p.parent.name, str(p)))
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=names))
    rows = {{"image": [str(p) for p in files], "label": [names.index(p.parent.name) for p in files]}}
    return datasets.Dataset.from_dict(rows, features=features)

class Wilds:
    # As WILDS has it: labels are 0-d tensors, a third part, fields of metadata.
    metadata_fields = ["hospital", "y"]

    def __init__(self):
        self.inner = ImageFolder(ROOT)
        self.classes = self.inner.classes
        self.metadata_array = np.stack([np.arange(len(self.inner)), np.array(self.inner.targets)], 1)

    def __len__(self):
        return len(self.inner)

    def __getitem__(self, i):
        import torch
        image, label = self.inner[i]
        return image, torch.tensor(label), torch.zeros(2)

def wilds():
    return Wilds()

def generator():
    inner = ImageFolder(ROOT)
    class Items(list):
        classes = inner.classes
    return Items(inner)

def arrays():
    inner = ImageFolder(ROOT)
    class Items(list):
        classes = inner.classes
    return Items((np.asarray(image), label) for image, label in inner)

def fails():
    raise RuntimeError("no such data")

def numbers():
    return [(Image.new("RGB", (8, 8)), 3)]

def tensors():
    import torch
    return [(torch.zeros(3, 8, 8), 0)]

def halves():
    return [(Image.new("RGB", (8, 8)), 0.5)]

def keys():
    return [{{"image": Image.new("RGB", (8, 8)), "label": 0, "target": 1}}]

def nothing():
    return []
"""


@pytest.fixture
def file(tmp_path: Path, pets: Path) -> Path:
    (tmp_path / "mine.py").write_text(FILE.format(root=str(pets)))
    (tmp_path / "models.txt").write_text(MODEL + "\n")
    return tmp_path / "mine.py"


def logits(cache: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and logits, rows in the order of labels and then of logits, which any order of files gives."""
    store = cache_schema.open_cache(cache).store("m", "pets")
    values, labels = store.logits().astype(np.float64), store.labels
    order = np.lexsort((*values.T, labels))
    return labels[order], values[order]


@pytest.mark.parametrize("function", ["folder", "face", "wilds", "generator", "arrays"])
def test_an_object_gives_the_logits_of_its_files(
    function: str, file: Path, pets: Path, tmp_path: Path, run_extract: Callable[..., Any]
) -> None:
    common = ["--model-list", "models.txt", "--device", "cpu", "--precision", "fp32", "--workers"]
    run_extract(*common, 0, "--dataset", f"pets={pets}", "--cache", "files", cwd=tmp_path)
    words = ["--dataset", f"pets=python:mine.py:{function}", "--cache", "objects"]
    run_extract(*common, 1 if function == "folder" else 0, *words, cwd=tmp_path)
    (labels, values), (of_files, expected) = logits(tmp_path / "objects"), logits(tmp_path / "files")
    np.testing.assert_array_equal(labels, of_files)
    np.testing.assert_array_equal(values, expected)
    again = run_extract(*common, 0, *words, cwd=tmp_path)
    assert "1 done" not in again.stderr + again.stdout, "the same content is the same dataset"


def test_metadata_of_wilds_are_columns(file: Path) -> None:
    dataset = resolve(spec(file, "wilds"))
    assert list(dataset.metadata) == ["hospital"]
    np.testing.assert_array_equal(dataset.metadata["hospital"], np.arange(45))


def spec(file: Path, function: str, **options: Any) -> DatasetSpec:
    from extract.commands.dataset_options import _spec_of

    return _spec_of(f"pets=python:{file}:{function}")


def test_other_content_is_another_dataset() -> None:
    class Items(list[Any]):
        classes = ("a", "b")

    def digest(items: list[Any]) -> str:
        return resolve(DatasetSpec(name="d", path=Path(), data=Items(items))).digest

    rng = np.random.default_rng(0)
    one, two = (Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8)) for _ in range(2))
    assert digest([(one, 0), (two, 1)]) == digest([(one, 0), (two, 1)])
    assert len({digest([(one, 0), (two, 1)]), digest([(two, 0), (one, 1)]), digest([(one, 1), (two, 1)])}) == 3


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("fails", "fails() fails: RuntimeError: no such data"),
        ("numbers", "its labels are numbers without names"),
        ("numbers:names.txt", "label 3 is not a class: there are 2"),
        ("tensors", "Tensor is not an image; return Pillow images, before any transform"),
        ("halves", "the label of item 0 is 0.5, not a class index"),
        ("keys", "return pairs (image, label)"),
        ("nothing", "the dataset is empty"),
        ("folde", "has no function 'folde'; did you mean folder"),
        ("no/such.py:make", "there is no file"),
    ],
)
def test_what_is_no_dataset_is_one_line(
    function: str, says: str, file: Path, tmp_path: Path, run_extract: Callable[..., Any]
) -> None:
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    text = function if ".py:" in function else f"mine.py:{function}"
    words = ["--model-list", "models.txt", "--dataset", f"pets=python:{text}", "--device", "cpu", "--workers", 0]
    done = run_extract(*words, cwd=tmp_path, code=None)
    assert done.returncode in (1, 2)
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_of_datasets_names_no_code(tmp_path: Path, run_extract: Callable[..., Any]) -> None:
    (tmp_path / "mine.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    (tmp_path / "models.txt").write_text(MODEL + "\n")
    for table in ('path = "python:mine.py:make"', 'path = "."\ndata = "mine.py:make"', 'path = "."\nreader = "python"'):
        (tmp_path / "datasets.toml").write_text(f"[pets]\n{table}\n")
        done = run_extract("--model-list", "models.txt", "--datasets", "datasets.toml", cwd=tmp_path, code=None)
        assert done.returncode in (1, 2)
        assert not (tmp_path / "ran").exists()


def test_one_bad_item_costs_one_image(file: Path, tmp_path: Path, pets: Path) -> None:
    from extract.datasets.images import UnreadableImage
    from extract.datasets.python_data import PythonSource

    class Items(list[Any]):
        def __getitem__(self, index: Any) -> Any:
            if index == 1:
                raise ValueError("cannot decode")
            return super().__getitem__(index)

    source = PythonSource(Items([(Image.new("RGB", (4, 4)), 0)] * 3), "d")
    assert source.read(0) == source.read(2)
    with pytest.raises(UnreadableImage, match="ValueError: cannot decode"):
        source.read(1)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"])
def test_every_mode_of_an_image_reaches_the_model_as_its_file_would(mode: str, tmp_path: Path) -> None:
    from extract.datasets.images import decode_rgb

    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = image.convert("I;16")
    path = tmp_path / ("x.tif" if mode in ("CMYK", "I", "F") else "x.png")
    image.save(path)
    from_file = decode_rgb(path.read_bytes())
    np.testing.assert_array_equal(np.asarray(decode_rgb(image_bytes(image, "d"))), np.asarray(from_file))


def test_objects_go_straight_into_a_run(pets: Path, tmp_path: Path) -> None:
    from torchvision.datasets import ImageFolder

    import closerlook

    closerlook.run(
        models=MODEL, datasets={"pets": ImageFolder(pets)}, cache=tmp_path / "cache", device="cpu", workers=0
    )
    assert cache_schema.open_cache(tmp_path / "cache").store("m", "pets").labels.shape == (45,)


def test_the_parts_of_an_item() -> None:
    assert parts(("i", 1, "more"), "d") == ("i", 1)
    assert parts("i", "d") == ("i", None)
    assert parts({"img": "i", "fine_label": 2, "other": 3}, "d") == ("i", 2)
    with pytest.raises(UserError, match="an item of 1 parts"):
        parts(("i",), "d")
