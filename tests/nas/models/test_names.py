"""An export loads from a folder of any name and by any way of writing its path."""

from __future__ import annotations

import os
import shutil
import sys

import pytest

pytestmark = pytest.mark.slow

NAMES = ["model.v1.2", "1st model", "class", "it's", "模型 🎉", "q?#%20", "x" * 200]


def in_a_process(prepared, script, *arguments, cwd):
    environment = os.environ | {"HF_MODULES_CACHE": str(cwd / "modules"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-I", "-c", script, *map(str, arguments)]
    done = prepared.run(command, env=environment, cwd=str(cwd))
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_names_and_relative_paths(exports, tmp_path, prepared):
    for name in NAMES:
        shutil.copytree(exports("dense"), tmp_path / name)
    script = """
import os, pathlib, sys, torch
from transformers import AutoModelForCausalLM
ids = torch.tensor([[1, 2, 3]])
seen = []
def add(path):
    model = AutoModelForCausalLM.from_pretrained(path, trust_remote_code=True)
    seen.append(model(ids).logits.detach())
for name in sys.argv[1:]:
    add("./" + name)
add(pathlib.Path(sys.argv[1]).absolute())
add(sys.argv[1] + "/")
os.chdir(sys.argv[1])
add(".")
add("./")
os.mkdir("below"); os.chdir("below")
add("..")
assert all(torch.allclose(each, seen[0], atol=1e-5) for each in seen)
"""
    in_a_process(prepared, script, *NAMES, cwd=tmp_path)


def test_two_designs_of_one_name_and_a_tuned_copy_without_its_original(exports, tmp_path, prepared):
    for parent, name in (("a", "switch"), ("b", "peer")):
        shutil.copytree(exports(name), tmp_path / parent / "model")
    script = """
import shutil
from transformers import AutoModel, AutoModelForCausalLM
load = lambda path, cls=AutoModelForCausalLM: cls.from_pretrained(path, trust_remote_code=True)
first, second = load("./a/model"), load("./b/model")
first.save_pretrained("./tuned")
shutil.rmtree("a")
again, bare = load("./tuned"), load("./tuned", AutoModel)
assert type(bare).__name__ == "FFNNASModel"
print(*(m.config.spec["selection"]["method"] for m in (first, second, again, bare)))
"""
    assert in_a_process(prepared, script, cwd=tmp_path).split() == [
        "topk",
        "product_key",
        "topk",
        "topk",
    ]
