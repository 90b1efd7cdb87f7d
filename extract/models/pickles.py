"""Files of ``torch.save``, read without running anything in them.

torch's restricted unpickler builds tensors and plain containers. Training scripts save more than the weights: their
arguments, numpy scalars, paths, versions. Such types are on a list here, by name, and each is replaced by an object
that ignores what it is given: nothing of numpy or of any other module is called. A file with a type that is not on the
list is refused. What a file claims to hold is checked against its size before any of it is loaded.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import struct
import threading
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import torch

from closerlook_common.errors import UserError

_ARRAYS = ("multiarray.scalar", "multiarray._reconstruct", "numeric._frombuffer")
_IGNORED = (
    *(f"numpy.{core}.{name}" for core in ("core", "_core") for name in _ARRAYS),
    *(f"numpy.{name}" for name in ("dtype", "ndarray", "float16", "float32", "float64", "int32", "int64", "bool_")),
    *(f"numpy.dtypes.{name}DType" for name in ("Float16", "Float32", "Float64", "Int32", "Int64", "Bool")),
    *(f"pathlib.{name}" for name in ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath")),
    *(f"pathlib._local.{name}" for name in ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath")),
    *(f"datetime.{name}" for name in ("date", "datetime", "time", "timedelta", "timezone")),
    *(f"builtins.{name}" for name in ("list", "dict", "tuple", "int", "float", "bool", "str", "frozenset", "slice")),
    *(f"omegaconf.{name}" for name in ("dictconfig.DictConfig", "listconfig.ListConfig", "nodes.AnyNode")),
    *(f"omegaconf.base.{name}" for name in ("ContainerMetadata", "Metadata", "Node", "SCMode")),
    "argparse.Namespace", "torch.torch_version.TorchVersion", "types.SimpleNamespace", "typing.Any", "uuid.UUID",
)  # fmt: skip
_MAPPINGS = (
    "addict.addict.Dict", "collections.defaultdict", "detectron2.config.config.CfgNode", "easydict.EasyDict",
    "fvcore.common.config.CfgNode", "lightning.fabric.utilities.data.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict", "mmcv.utils.config.ConfigDict",
    "mmengine.config.config.ConfigDict", "pytorch_lightning.utilities.parsing.AttributeDict", "yacs.config.CfgNode",
)  # fmt: skip
_LISTS = ("collections.deque",)

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
"""The first object in a file that torch wrote before version 1.6."""
_LEGACY_PICKLES = 4
"""The number, the protocol, the system, the content; keys and storages follow."""
_MOST_OPERATIONS = 20_000_000
"""A checkpoint of a thousand tensors has some 50,000."""

_LARGEST_PICKLE = 256 << 20
_DEPTH = 3

_lock = threading.Lock()  # torch's list of safe types belongs to the process


class _Nothing:
    """Takes the place of an object that is no weight."""

    def __init__(self, *_: Any) -> None: ...

    def __new__(cls, *_: Any) -> _Nothing:
        return object.__new__(cls)

    def __setstate__(self, state: Any) -> None: ...


class _AMapping:
    """Takes the place of a kind of dict; torch fills no other subclass than ``OrderedDict``."""

    def __new__(cls, *_: Any) -> OrderedDict[Any, Any]:  # type: ignore[misc]
        return OrderedDict()


class _AList:
    """Takes the place of a kind of list."""

    def __new__(cls, *_: Any) -> list[Any]:  # type: ignore[misc]
        return []


_STAND_INS: list[Any] = [
    *((_Nothing, name) for name in _IGNORED),
    *((_AMapping, name) for name in _MAPPINGS),
    *((_AList, name) for name in _LISTS),
]


def load_torch_file(path: Path) -> Any:
    """Return what a file of ``torch.save`` holds, on the CPU; nothing in it is run.

    Raises
    ------
    UserError
        It is another file, holds types that only their own code could read, or claims more than it holds. The
        message begins with "it" and names no file.
    """
    is_archive = zipfile.is_zipfile(path)
    _refuse(_names_in_archive(path) if is_archive else _names_in_legacy(path))
    with _lock, warnings.catch_warnings(), torch.serialization.safe_globals(_STAND_INS):
        warnings.simplefilter("ignore")  # of the protocol, and of storages that are deprecated
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)
        except (pickle.UnpicklingError, RuntimeError, EOFError, *_ODD) as error:
            _refuse(set(re.findall(r"GLOBAL ([\w.]+)", str(error))))
            raise UserError(f"it is damaged or no file of torch.save: {_first_line(error)}") from error
    _check_sizes(content, path)
    return content


def nested_tensors(content: Any) -> Iterator[tuple[tuple[str, ...], dict[str, torch.Tensor]]]:
    """Yield every mapping of names to tensors in a checkpoint, once, with the keys that lead to it."""
    seen: set[int] = set()

    def walk(value: Any, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, torch.Tensor]]]:
        if not isinstance(value, Mapping) or id(value) in seen:
            return
        seen.add(id(value))
        named = {name: inner for name, inner in value.items() if isinstance(name, str)}
        if tensors := {name: inner for name, inner in named.items() if isinstance(inner, torch.Tensor)}:
            yield keys, tensors
        if len(keys) < _DEPTH:
            for name, inner in named.items():
                yield from walk(inner, (*keys, name))

    yield from walk(content, ())


def _refuse(names: set[str]) -> None:
    """Raise where a file refers to types that are not on the list."""
    if not names:
        return
    if any(".modules." in name for name in names):
        raise UserError("it holds the model itself, which only its code could read; save model.state_dict() alone")
    shown = ", ".join(sorted(names)[:3]) + (" ..." if len(names) > 3 else "")
    raise UserError(
        f"it holds more than tensors ({shown[:200]}), which only code could read;"
        " save model.state_dict() alone, or as .safetensors"
    )


_ODD = (ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, TypeError, ValueError)
"""What an unpickler raises for operations that make no sense."""


def _first_line(error: BaseException) -> str:
    text = str(error).strip().partition("\n")[0]
    return (text if len(text) < 200 else text[:197] + "...") or type(error).__name__


def _names_in_archive(path: Path) -> set[str]:
    """Return the types in an archive that are not on the list, once its sizes are known to be true."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            names = [entry.filename.partition("/")[2] or entry.filename for entry in entries]
            if any(name == "constants.pkl" or name.startswith("code/") for name in names):
                raise UserError("it is a TorchScript archive, which holds code; save model.state_dict() alone")
            size = path.stat().st_size
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise UserError("it is a compressed archive, which torch.save does not write; save it again")
            if sum(entry.file_size for entry in entries) > size:
                raise UserError("it is damaged: it claims to hold more bytes than it has")
            pickles = [entry for entry, name in zip(entries, names, strict=True) if name == "data.pkl"]
        if len(pickles) != 1:
            raise UserError("it is a zip archive that torch.save did not write")
        return _refused_names(io.BytesIO(_stored(path, pickles[0])))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OverflowError, struct.error) as error:
        raise UserError(f"it is a damaged archive: {_first_line(error)}") from error


def _stored(path: Path, entry: zipfile.ZipInfo) -> bytes:
    """Return the bytes of an uncompressed entry; zipfile insists on checksums, which torch may leave out."""
    if entry.file_size > _LARGEST_PICKLE:
        raise UserError(f"its description of the tensors is larger than {_LARGEST_PICKLE >> 20} MiB")
    with path.open("rb") as file:
        file.seek(entry.header_offset + 26)
        file.seek(sum(struct.unpack("<HH", file.read(4))), io.SEEK_CUR)
        return file.read(entry.file_size)


def _names_in_legacy(path: Path) -> set[str]:
    with path.open("rb") as file:
        start = file.read(40)
        if start.startswith(b"\x1f\x8b"):
            raise UserError("it is compressed (gzip); unpack it first")
        if not start.startswith(b"\x80"):
            raise UserError(f"it is not a weight file, it begins with {start[:24].decode('latin-1')!r}")
        file.seek(0)
        number = next((argument for code, argument, _ in _operations(file) if code.name.startswith("LONG")), None)
        file.seek(0)
        if number != _MAGIC_NUMBER:
            _refuse(_refused_names(file))
            raise UserError("it is a pickle that torch.save did not write; save model.state_dict() with torch.save")
        return {name for _ in range(_LEGACY_PICKLES) for name in _refused_names(file)}


def _operations(file: IO[bytes]) -> Any:
    """Yield the operations of one pickle."""
    try:
        yield from pickletools.genops(file)
    except (ValueError, OverflowError, RecursionError) as error:
        raise UserError(f"it is damaged: {_first_line(error)}") from error


def _refused_names(file: IO[bytes]) -> set[str]:
    """Return what the next pickle of a file refers to, apart from what torch or the list here knows."""
    found: set[str] = set()
    for count, (code, argument, _) in enumerate(_operations(file)):
        if count > _MOST_OPERATIONS:
            raise UserError(f"its description of the tensors has more than {_MOST_OPERATIONS:,} operations")
        if code.name in ("GLOBAL", "INST"):
            found.add(".".join(str(argument).split(" ", 1)))
        elif code.name == "STACK_GLOBAL":
            raise UserError("it was saved with pickle_protocol 4 or later; save it with torch.save's own")
    listed = {*_IGNORED, *_MAPPINGS, *_LISTS}
    return {name for name in map(_current, found) if not (name in listed or _is_torchs(name))}


def _current(name: str) -> str:
    """Return the name in Python 3 of what a pickle of protocol 2 calls by its name in Python 2."""
    return name.replace("__builtin__.", "builtins.", 1) if name.startswith("__builtin__.") else name


_OF_TORCH = (
    "_codecs.encode", "builtins.complex", "builtins.set", "collections.Counter", "collections.OrderedDict",
)  # fmt: skip


def _is_torchs(name: str) -> bool:
    """Return whether torch itself decides about a name; ``bytearray`` is not among them, it takes any size."""
    return name in _OF_TORCH or name.startswith("torch.")


def _check_sizes(content: Any, path: Path) -> None:
    """Raise where tensors take more than the file: a view of one number may claim any shape."""
    size = path.stat().st_size
    storages: dict[int, int] = {}
    for _, tensors in nested_tensors(content):
        for name, tensor in tensors.items():
            if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
                raise UserError(f"its tensor {name} is sparse, quantized or without values; save plain tensors")
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            if tensor.numel() * tensor.element_size() > size:
                raise UserError(f"its tensor {name} claims the shape {tuple(tensor.shape)}, more than the file holds")
    if sum(storages.values()) > size:
        raise UserError("its tensors claim more bytes than the file holds")
