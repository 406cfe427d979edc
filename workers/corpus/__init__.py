"""The corpus: text -> documents -> splits -> tokenizer -> token streams, cached by content.

`prepare` makes a corpus or finds it in the cache; `Corpus` reads one. In the order of the data's
way: location, local, files and hub (where text is), content, rows, documents (what it says),
account (what was left out), split, tokenizer and given, encode, build, draft, seal, stream.
"""

from workers.corpus.build import prepare
from workers.corpus.draft import sweep
from workers.corpus.stream import Corpus

__all__ = ["Corpus", "prepare", "sweep"]
