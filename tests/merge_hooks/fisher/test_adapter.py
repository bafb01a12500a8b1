"""A map of a base with an adapter over it: of the folded model, and only good beside that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from merge_hooks.errors import FisherError
from merge_hooks.tools.fisher import make_map
from tests.merge_hooks.fisher.conftest import CPU, TEXTS
from tests.merge_hooks.fisher.test_map import assert_close, by_hand
from tests.merge_hooks.fisher.test_recipe import recipe_of, stream_of
from tests.merge_hooks.recipes.test_lora import KINDS, make_adapter


@pytest.mark.slow
def test_the_map_of_an_adapter_is_that_of_the_folded_model(family: Any, maps: Any, texts: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    adapter = make_adapter(str(family["base"]), tmp_path / "adapter", 1, torch.float32, **KINDS["plain"])
    model = f"{family['base']}+{adapter}"
    make_map(model, texts, tmp_path / "map", CPU)
    base = AutoModelForCausalLM.from_pretrained(family["base"], dtype=torch.float32)
    PeftModel.from_pretrained(base, str(adapter)).merge_and_unload().save_pretrained(tmp_path / "folded")
    AutoTokenizer.from_pretrained(family["base"]).save_pretrained(tmp_path / "folded")
    assert_close(load_file(tmp_path / "map"), by_hand(tmp_path / "folded", TEXTS, 32))
    folded = {"basque": model, "instruct": family["instruct"]}
    merged = dict(stream_of(recipe_of(folded, {**maps, "basque": tmp_path / "map"})))
    whole = {"basque": tmp_path / "folded", "instruct": family["instruct"]}
    golden = dict(stream_of(recipe_of(whole, {**maps, "basque": tmp_path / "map"})))
    assert all(torch.equal(tensor, golden[name]) for name, tensor in merged.items())
    with pytest.raises(FisherError, match="other values than in base"):
        list(stream_of(recipe_of(folded, {**maps, "basque": maps["base"]})))
