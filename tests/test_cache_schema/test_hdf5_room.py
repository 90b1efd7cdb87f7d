"""HDF5 never writes beyond the room that was taken for it; the file ends where HDF5's own end is."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache_schema.backends import hdf5
from cache_schema.backends.hdf5 import Hdf5Files, read_tail
from cache_schema.format.schema import Layout

if not hasattr(hdf5.os, "posix_fallocate"):
    pytest.skip("this system cannot take room on the disk", allow_module_level=True)


@settings(max_examples=25)
@given(
    shapes=st.lists(
        st.one_of(st.tuples(st.integers(0, 1500)), st.tuples(st.integers(1, 150), st.integers(1, 60))),
        min_size=1, max_size=12,
    ),
    chunk=st.sampled_from([1, 3, 1000]),
    header=st.sampled_from([10, 5_000, 300_000]),
    seed=st.integers(0, 3),
)  # fmt: skip
def test_what_hdf5_writes_fits(tmp_path_factory, shapes, chunk, header, seed):
    path = tmp_path_factory.mktemp("room") / "store.h5"
    rng = np.random.default_rng(seed)
    with pytest.MonkeyPatch.context() as patch:
        # Many small chunks, which need the most beside themselves.
        patch.setattr(hdf5, "layout", lambda shape, size: Layout(min(chunk, max(1, shape[0])), max(1, shape[0])))
        taken: list[tuple[int, int]] = []
        written: list[int] = []
        fallocate = hdf5.os.posix_fallocate

        def take(file, start, size):
            taken.append((start, size))
            fallocate(file, start, size)

        patch.setattr(hdf5.os, "posix_fallocate", take)
        files = Hdf5Files(path)
        files.begin({"text": "x" * header})
        for index, shape in enumerate(shapes):
            values = rng.integers(0, 2**62, shape)  # as good as incompressible
            files.create(f"array {index}", values.shape, values.dtype)
            files.write(f"array {index}", 0, values)
            files._h5().flush()
            written.append(files._h5().id.get_filesize())
            assert written[-1] <= files._room
        files.seal({"text": "y" * header})
    assert len(taken) >= 2
    with path.open("rb") as file:
        tail = read_tail(file, path)
    own = path.stat().st_size - len(tail.header.encode()) - hdf5.TAIL
    assert own <= max(start + size for start, size in taken)
    with path.open("r+b") as file:
        file.truncate(own)
    with h5py.File(path) as file:  # what is left is a whole HDF5 file and no more
        assert file.id.get_filesize() == own
        assert sorted(file) == sorted(f"array {index}" for index in range(len(shapes)))
