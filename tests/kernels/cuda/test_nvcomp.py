"""The binding of nvCOMP: its versions and checks without a GPU, and its streams on a GPU."""

import ctypes
import sys
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rxrx_kernels.cuda import nvcomp

needs_nvcomp = pytest.mark.skipif(not nvcomp.available(), reason="nvCOMP 5 is not installed")


class Face:
    """An array's interface without a GPU behind it."""

    def __init__(self, shape, typestr="<u8", strides=None, address=256):
        self.shape = shape
        self.__cuda_array_interface__ = {
            "shape": shape, "typestr": typestr, "strides": strides, "data": (address, False), "version": 3,
        }  # fmt: skip


def test_structures_are_as_in_the_header():
    """The options are 64 bytes by value, as in nvcomp/deflate.h."""
    assert ctypes.sizeof(nvcomp._Options) == 64
    assert ctypes.sizeof(nvcomp._Alignments) == 24


@needs_nvcomp
def test_what_the_library_says_of_itself():
    """NvCOMP is version 5, has words for a status, and aligns streams to at most 16 bytes."""
    assert nvcomp.version()[0] == 5
    assert nvcomp.status_text(0)
    assert nvcomp.status_text(12) != nvcomp.status_text(0)
    wanted = nvcomp.alignments()
    assert 16 % wanted.input == 0
    assert 16 % wanted.output == 0
    assert wanted.temp >= 1
    assert 0 <= nvcomp.temporary_bytes(6144, 512 * 513, 6144 * 512 * 513) < 2**32


def test_another_version_is_refused(monkeypatch):
    """NvCOMP 6 has another interface: it is not available, and the error says why."""

    def tell(found):
        found._obj.version = 6000

    six = SimpleNamespace(**{name: SimpleNamespace() for name in nvcomp._ARGUMENTS})
    six.nvcompGetProperties = tell
    monkeypatch.setitem(sys.modules, "nvidia.libnvcomp", None)
    nvcomp._library.cache_clear()
    assert not nvcomp.available()
    monkeypatch.setitem(sys.modules, "nvidia.libnvcomp", SimpleNamespace(load_library=lambda: six))
    with pytest.raises(ImportError, match=r"nvCOMP 6\.0\.0 has another interface"):
        nvcomp.version()
    nvcomp._library.cache_clear()


@needs_nvcomp
def test_arrays_that_do_not_fit_are_refused():
    """Another length, dtype or stride is an error before anything is queued."""
    words = [Face((3,)) for _ in range(5)]
    for wrong in (Face((2,)), Face((3,), "<f8"), Face((3,), "<u4"), Face((3,), strides=(16,))):
        with pytest.raises(ValueError, match=r"expected|contiguous"):
            nvcomp.inflate_batch(words[0], wrong, *words[2:5], Face((3,), "<i4"), None, 0)
        if wrong.shape == (3,) and wrong.__cuda_array_interface__["typestr"] != "<u4":
            with pytest.raises(ValueError, match=r"expected|contiguous"):
                nvcomp.inflate_batch(*words, wrong, None, 0)


@pytest.mark.gpu
@needs_nvcomp
def test_streams_on_a_gpu():
    """Streams of every kind of block inflate to their bytes; one larger than its room gets a status."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 6, 512 * 513).astype(np.int8).tobytes()
    texts = [noise, b"abc" * 1000, noise[:1000], b"\0" * 70000]
    streams = [zlib.compress(text, level)[2:-4] for text, level in zip(texts, (9, 6, 0, 1))]
    starts = np.cumsum([0, *(-(-len(s) // 16) * 16 + 16 for s in streams)])
    packed = np.zeros(starts[-1], np.uint8)
    for start, stream in zip(starts, streams):
        packed[start : start + len(stream)] = np.frombuffer(stream, np.uint8)
    room = max(map(len, texts))
    on_gpu = torch.from_numpy(packed).cuda()
    out = torch.zeros((4, room), dtype=torch.uint8, device="cuda")
    rooms = [len(text) for text in texts[:3]] + [100]
    tables = torch.tensor(
        [
            [on_gpu.data_ptr() + int(s) for s in starts[:4]],
            [len(s) for s in streams],
            rooms,
            [out.data_ptr() + k * room for k in range(4)],
        ]
    ).cuda()
    decoded = torch.zeros(4, dtype=torch.int64, device="cuda")
    status = torch.full((4,), -1, dtype=torch.int32, device="cuda")
    size = nvcomp.temporary_bytes(4, room, 4 * room)
    temporary = torch.empty(size, dtype=torch.uint8, device="cuda") if size else None
    stream = torch.cuda.current_stream().cuda_stream
    nvcomp.inflate_batch(tables[0], tables[1], tables[2], tables[3], decoded, status, temporary, stream)
    torch.cuda.synchronize()
    assert status[:3].tolist() == [0, 0, 0]
    assert status[3] == 12
    for k in range(3):
        assert decoded[k] == len(texts[k])
        assert out[k, : len(texts[k])].cpu().numpy().tobytes() == texts[k]
