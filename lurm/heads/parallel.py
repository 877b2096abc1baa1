"""Work side by side in threads, each of which computes with one: results do not depend on their number."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def one_thread() -> Iterator[None]:
    """Within, torch computes with one thread: so the bytes are the same on every machine's setting."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def in_threads(
    work: Callable[[Item], Result], items: Sequence[Item], n_threads: int
) -> list[Result]:
    """``work`` of every item, in their order, so many at a time.

    An OpenMP loop over two threads waits for the slower one after every operation, which on a busy
    machine takes longer than the operation; threads that share nothing wait once.
    """
    with one_thread():
        if n_threads <= 1 or len(items) <= 1:
            return [work(item) for item in items]
        start = partial(torch.set_num_threads, 1)  # a setting of each thread
        with ThreadPoolExecutor(n_threads, initializer=start) as pool:
            return list(pool.map(work, items))
