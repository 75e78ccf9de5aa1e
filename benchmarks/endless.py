"""A copy of a model that cannot end a completion, so that both sides of a benchmark decode the same lengths."""

from __future__ import annotations

import json
import shutil
from pathlib import Path


def without_end(base: str | Path, target: Path) -> Path:
    """Copy the model folder `base` to `target`, with an end token that lies outside its vocabulary."""
    from transformers import AutoConfig, AutoTokenizer

    tokenizer, vocab = AutoTokenizer.from_pretrained(base), AutoConfig.from_pretrained(base).vocab_size
    target.mkdir(parents=True)
    for file in Path(base).iterdir():
        if file.is_file():
            shutil.copy(file, target / file.name)
    tokenizer.add_tokens([f"<|never {i}|>" for i in range(vocab - len(tokenizer) + 1)], special_tokens=True)
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(len(tokenizer) - 1)
    tokenizer.save_pretrained(target)
    for name in ("config.json", "generation_config.json"):
        path = target / name
        if path.is_file():
            path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": tokenizer.eos_token_id}))
    return target
