"""Loading ahead: order, end, exceptions, early exit."""

import subprocess
import sys
import threading
import weakref
from pathlib import Path

import pytest
import torch
from torch.utils.data import Dataset

from basicsr.data.prefetch_dataloader import CPUPrefetcher, CUDAPrefetcher, PrefetchDataLoader, PrefetchGenerator


class Squares(Dataset):
    def __init__(self, broken_at: int = -1) -> None:
        self.broken_at = broken_at

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> dict:
        if index == self.broken_at:
            raise ValueError(f"sample {index} is damaged")
        return {"x": torch.tensor(index**2), "path": str(index)}


def _threads() -> int:
    return sum(thread.name.endswith("(_read_ahead)") for thread in threading.enumerate())


def test_all_items_come_in_order_and_the_end_stays_the_end():
    reader = PrefetchGenerator(range(5), 2)
    assert list(reader) == [0, 1, 2, 3, 4]
    with pytest.raises(StopIteration):
        next(reader)


def test_it_reads_no_further_ahead_than_asked():
    read = []

    def source():
        for item in range(10):
            read.append(item)
            yield item

    reader = PrefetchGenerator(source(), 2)
    assert next(reader) == 0
    reader.close()
    assert len(read) <= 3
    with pytest.raises(StopIteration):
        next(reader)


def test_none_is_an_item_like_any_other():
    assert list(PrefetchGenerator([None, 1, None], 1)) == [None, 1, None]


def test_dropping_it_ends_the_thread():
    reader = PrefetchGenerator(iter(range(10**9)), 1)
    thread = reader._thread
    assert next(reader) == 0
    gone = weakref.ref(reader)
    del reader
    assert gone() is None
    thread.join(timeout=10)
    assert not thread.is_alive()


def test_an_exception_comes_where_the_item_would_have_come():
    def source():
        yield 1
        raise OSError("disk gone")

    reader = PrefetchGenerator(source(), 4)
    assert next(reader) == 1
    for _ in range(2):
        with pytest.raises(OSError, match="disk gone"):
            next(reader)


@pytest.mark.parametrize("workers", [0, 1])
def test_loader_gives_the_plain_loaders_batches(workers):
    loader = PrefetchDataLoader(2, dataset=Squares(), batch_size=2, num_workers=workers, persistent_workers=workers > 0)
    for _ in range(2):
        assert [batch["x"].tolist() for batch in loader] == [[0, 1], [4, 9], [16, 25]]


def test_leaving_early_and_starting_again_with_persistent_workers():
    loader = PrefetchDataLoader(1, dataset=Squares(), batch_size=1, num_workers=1, persistent_workers=True)
    for _ in range(3):
        iterator = iter(loader)
        assert next(iterator)["x"].item() == 0
    assert [batch["x"].item() for batch in loader] == [0, 1, 4, 9, 16, 25]


def test_a_workers_exception_reaches_the_training():
    loader = PrefetchDataLoader(1, dataset=Squares(broken_at=2), batch_size=1, num_workers=1)
    prefetcher = CPUPrefetcher(loader)
    assert [prefetcher.next()["x"].item() for _ in range(2)] == [0, 1]
    with pytest.raises(ValueError, match="sample 2 is damaged"):
        prefetcher.next()


def test_a_process_that_leaves_early_ends():
    script = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
from basicsr.data.prefetch_dataloader import PrefetchDataLoader
loader = PrefetchDataLoader(1, dataset=list(range(100)), batch_size=1, num_workers=1)
iterator = iter(loader)
print(next(iterator).item())
"""
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run([sys.executable, "-c", script, root], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


@pytest.mark.parametrize("make", [CPUPrefetcher, lambda loader: CUDAPrefetcher(loader, {"num_gpu": 0})])
def test_prefetchers_hand_out_an_epoch_then_none(make):
    prefetcher = make([{"x": 1}, {"x": 2}])
    for _ in range(2):
        assert [prefetcher.next() for _ in range(4)] == [{"x": 1}, {"x": 2}, None, None]
        prefetcher.reset()
    assert prefetcher.next() == {"x": 1}
    prefetcher.reset()
    assert prefetcher.next() == {"x": 1}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_prefetcher_copies_tensors():
    batches = [
        {"x": torch.full((4,), float(i)).pin_memory(), "path": [str(i)], "all": [torch.ones(1)]} for i in range(20)
    ]
    prefetcher = CUDAPrefetcher(batches, {"num_gpu": 1})
    for i in range(20):
        batch = prefetcher.next()
        assert batch["x"].is_cuda and batch["all"][0].is_cuda and batch["path"] == [str(i)]
        assert batch["x"].tolist() == [float(i)] * 4
    assert prefetcher.next() is None
