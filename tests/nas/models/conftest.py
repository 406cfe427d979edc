"""Exports of every selection method with drawn weights, loaded as users load them."""

from __future__ import annotations

import copy
import os
import sys
from pathlib import Path

import drawn
import pytest
import torch

from nas.models.tokenizer import PAD


@pytest.fixture(scope="session")
def tokenizer_json():
    """The tokenizer.json of a small study."""
    return drawn.tokenizer_text()


@pytest.fixture(scope="session")
def exports(tmp_path_factory, tokenizer_json):
    """exports(name): the directory of a design of drawn.SPECS, written when first asked for."""
    root = tmp_path_factory.mktemp("exports")

    def directory(name):
        folder = root / name
        if not folder.exists():
            drawn.write_export(folder, drawn.SPECS[name], tokenizer_json)
        return folder

    return directory


@pytest.fixture(scope="session")
def remote_code(tmp_path_factory):
    """transformers keeps the code that it loads in a folder of the tests."""
    from transformers import dynamic_module_utils

    folder = str(tmp_path_factory.mktemp("modules"))
    # An earlier test may have loaded some from elsewhere, into a package of this name.
    for name in [name for name in sys.modules if name.split(".")[0] == "transformers_modules"]:
        del sys.modules[name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", folder)
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.syspath_prepend(folder)
        Path(folder, "__init__.py").touch()
        yield folder


@pytest.fixture(scope="session")
def load(exports, remote_code):
    """load(name, **options): a model of its own in evaluation mode, by the code in its export."""
    from transformers import AutoModelForCausalLM

    loaded = {}

    def model(name, **options):
        if options:
            return AutoModelForCausalLM.from_pretrained(
                exports(name), trust_remote_code=True, **options
            )
        if name not in loaded:
            loaded[name] = AutoModelForCausalLM.from_pretrained(
                exports(name), trust_remote_code=True
            )
        return copy.deepcopy(loaded[name])

    return model


@pytest.fixture(scope="session")
def tokenizer(exports, remote_code):
    """The tokenizer of all of them."""
    from transformers import AutoTokenizer

    found = AutoTokenizer.from_pretrained(exports("switch"), trust_remote_code=True)
    assert found.pad_token == PAD
    return found


@pytest.fixture(scope="session")
def ids():
    """(1, 12) token ids."""
    return torch.tensor([[(7919 * i + 13) % 250 for i in range(12)]])


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small models are fastest so, and other tests may run beside them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """No progress bars of transformers in a failure's report."""
    monkeypatch.setitem(os.environ, "HF_HUB_DISABLE_PROGRESS_BARS", "1")
