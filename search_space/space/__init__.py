"""The designs of a study: the space as data, asking a trial for one, visiting and counting them."""

from search_space.space.data import SearchSpace

__all__ = ["SearchSpace"]
