"""The designs of a study: the space as data, asking a trial for one, visiting and counting them."""

from search_space.space.asking import suggest
from search_space.space.data import SearchSpace
from search_space.space.visit import combinations, count_designs, designs, look, params_of, shapes

__all__ = [
    "SearchSpace",
    "combinations",
    "count_designs",
    "designs",
    "look",
    "params_of",
    "shapes",
    "suggest",
]
