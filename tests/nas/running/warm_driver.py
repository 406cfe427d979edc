"""Imported by the process that drivers are forked from. It drives a tiny study itself, so that each
driver finds loaded what a study loads and makes once a process: the compiled loops above all.
"""

from __future__ import annotations

import os
import tempfile

# A process may fork after a backward pass where autograd has no threads, and it has one a GPU.
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import killed_driver

from nas import config as study_config
from search_space.corpus import CorpusSpec
from workers.corpus import prepare

_FEW_STEPS = {"budget": killed_driver.RUNGS["budget"] | {"trial_flops": 1e7}}

with tempfile.TemporaryDirectory() as _folder:
    _corpus = prepare(CorpusSpec(max_bytes=100_000), vocab_size=300, seq_len=16, cache_dir=_folder)
    _least, study_config.LEAST_STEPS = study_config.LEAST_STEPS, 1
    killed_driver.drive(f"sqlite:///{_folder}/nas.db", str(_corpus.dir), _FEW_STEPS)
    study_config.LEAST_STEPS = _least
