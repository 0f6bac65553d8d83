"""The `implicit` library's item-item cosine model on a matrix of rows that hold products."""

import warnings
from collections.abc import Collection, Iterable, Sequence
from importlib import import_module
from typing import Any

from streams.errors import MillraceError


class ItemCosine:
    """`implicit.nearest_neighbours.CosineRecommender`, with products by their names.

    Rows are sessions or users, each entry is 0 or 1. Raises MillraceError where the library is not installed.
    """

    def __init__(self, rows: Sequence[Collection[str]], k: int) -> None:
        """Fit on the rows, keeping `k` neighbours of each product (itself among them)."""
        self._sparse, nearest = imported("scipy.sparse"), imported("implicit.nearest_neighbours")
        self.products = sorted({product for row in rows for product in row})
        self._place = {product: place for place, product in enumerate(self.products)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it advises on environment variables
            self._model = nearest.CosineRecommender(K=k, num_threads=1)
            self._model.fit(self._matrix(rows), show_progress=False)

    def _matrix(self, rows: Sequence[Collection[str]]) -> Any:
        indices, ends = [], [0]
        for row in rows:
            indices += sorted({self._place[product] for product in row if product in self._place})
            ends.append(len(indices))
        shape = (len(rows), len(self.products))
        return self._sparse.csr_matrix(([1.0] * len(indices), indices, ends), shape=shape)

    def neighbours(self, product: str, n: int) -> list[tuple[str, float]]:
        """At most `n` other products with their scores, nearest first."""
        ids, scores = self._model.similar_items(self._place[product], N=n + 1)
        found = [(self.products[i], float(score)) for i, score in zip(ids, scores, strict=True) if score > 0]
        return [pair for pair in found if pair[0] != product][:n]

    def recommend(self, touched: Collection[str], hidden: Collection[str], n: int) -> list[str]:
        """At most `n` products for one who has touched these, without the hidden ones."""
        row = self._matrix([touched])
        ids = self._model.recommend(0, row, N=n + len(hidden), filter_already_liked_items=False)[0]
        return [name for name in (self.products[i] for i in ids) if name not in hidden][:n]


def imported(name: str) -> Any:
    """A module of the extra `compare`."""
    try:
        return import_module(name)
    except ImportError as error:
        raise MillraceError("the comparison needs `implicit`: pip install 'millrace[compare]'") from error


def agree(
    ours: Iterable[tuple[str, float]], theirs: Iterable[tuple[str, float]], n: int = 10, *, within: float = 1e-9
) -> bool:
    """Whether two lists of neighbours have the same first `n`, ties aside. Give both more than `n` where there are.

    >>> agree([("a", 0.5), ("b", 0.25), ("c", 0.25)], [("a", 0.5), ("c", 0.25), ("b", 0.25)], 2)
    True
    >>> agree([("a", 0.5), ("b", 0.25)], [("a", 0.5), ("c", 0.24)], 2)
    False
    """
    one, two = list(ours), list(theirs)
    if len(one[:n]) != len(two[:n]):
        return False
    if any(abs(a - b) > within for (_, a), (_, b) in zip(one[:n], two[:n], strict=True)):
        return False
    if not one[:n]:
        return True
    last = one[:n][-1][1]
    return {name for name, score in one[:n] if score > last + within} == {
        name for name, score in two[:n] if score > last + within
    }
