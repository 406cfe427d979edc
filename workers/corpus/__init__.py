"""The corpus: text -> documents -> splits -> tokenizer -> token streams, cached by content.

`prepare` makes a corpus or finds it in the cache; `Corpus` reads one. In the order of the data's
way: files and hub (where text is), documents, split, tokenizer, encode, build, stream.
"""

from workers.corpus.build import prepare
from workers.corpus.stream import Corpus

__all__ = ["Corpus", "prepare"]
