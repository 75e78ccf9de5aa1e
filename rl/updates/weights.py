"""Where weights come from: tensors by name, in the dtype in which they are stored, one at a time."""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...parts import UserError
from ...rollouts.vllm.adapter import PREFIX, scaling

if TYPE_CHECKING:
    from ..learner.group import LearnerGroup
    from ..learner.learner import Learner

DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
"""What is compared, by safetensors' names."""


@dataclass(frozen=True)
class Kept:
    """What is known of a tensor before it is read."""

    dtype: str
    """By safetensors' name."""
    shape: tuple[int, ...]


class Weights:
    """One model's weights."""

    label: str
    """What the user called it."""
    kept: Mapping[str, Kept]
    """Every tensor, by its name in the model."""
    tied: Mapping[str, str]
    """Names that stand for another tensor, by that of the other."""
    device: torch.device = torch.device("cpu")
    """Where `read` and `delta` give their tensors."""

    def read(self, name: str) -> Tensor:
        """The tensor as it is stored; it may share memory with a file."""
        raise NotImplementedError

    def delta(self, name: str, base: Tensor) -> Tensor | None:
        """The float32 change since `base` where more is known of it than the stored weights tell, else None."""
        return None

    @property
    def has_deltas(self) -> bool:
        """Whether `delta` knows more: masters, or an adapter that is not merged yet."""
        return False

    def close(self) -> None:
        """Let go of files."""


class Folder(Weights):
    """A Hugging Face model folder: one safetensors file, or shards and their index, mapped into memory."""

    def __init__(self, folder: Path, label: str | None = None) -> None:
        """Read the headers.

        Raises:
            UserError: there is no safetensors file, or one is damaged or missing.
        """
        self.label = label or str(folder)
        self._files: list[mmap.mmap] = []
        self._places: dict[str, tuple[int, int, int]] = {}
        kept: dict[str, Kept] = {}
        for path in _shards(folder):
            for name, entry in self._open(path).items():
                kept[name] = Kept(entry["dtype"], tuple(entry["shape"]))
        self.kept = kept
        config = folder / "config.json"
        tied = config.is_file() and json.loads(config.read_text()).get("tie_word_embeddings", False)
        self.tied = tied_head(kept) if tied else {}

    def read(self, name: str) -> Tensor:
        """A view of the mapped file."""
        file, start, stop = self._places[name]
        kept = self.kept[name]
        if start == stop:
            return torch.empty(kept.shape, dtype=DTYPES[kept.dtype])
        data = memoryview(self._files[file])[start:stop]
        return torch.frombuffer(data, dtype=DTYPES[kept.dtype]).view(kept.shape)

    def close(self) -> None:
        """Forget the maps; the last view of one lets it go."""
        self._files = []

    def _open(self, path: Path) -> dict[str, Any]:
        """The header of one file: 8 bytes of length, then JSON with dtype, shape and data_offsets by name."""
        with path.open("rb") as file:
            # A private map is writable for torch's sake; nothing writes, so that nothing is copied.
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) if path.stat().st_size else None
        try:
            assert data is not None
            begin = 8 + int.from_bytes(data[:8], "little")
            header = json.loads(data[8:begin])
            header.pop("__metadata__", None)
            for name, entry in header.items():
                start, stop = entry["data_offsets"]
                self._places[name] = (len(self._files), begin + start, begin + stop)
                if not 0 <= start <= stop <= len(data) - begin:
                    raise ValueError(f"{name} lies outside the file")
        except (AssertionError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is no whole safetensors file ({error}); fetch or write it again") from None
        self._files.append(data)
        return header


def _shards(folder: Path) -> list[Path]:
    """The folder's safetensors files: those that the index names, else the one there is."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        one = folder / "model.safetensors"
        found = [one] if one.is_file() else sorted(folder.glob("*.safetensors"))
        if not found:
            raise UserError(f"{folder} holds no safetensors files; give a Hugging Face model folder that does")
        return found
    named = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    missing = [name for name in named if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{folder} lacks {', '.join(missing)}, which its index names; fetch the model again")
    return [folder / name for name in named]


def tied_head(kept: Mapping[str, Any]) -> dict[str, str]:
    """The head, where it has no tensor of its own beside the embedding."""
    embedding = next((name for name in kept if name.endswith("embed_tokens.weight")), None)
    return {"lm_head.weight": embedding} if embedding and "lm_head.weight" not in kept else {}


Pairs = Mapping[str, tuple[Tensor, Tensor, float]]
"""A [R, in], B [out, R] and their scale, by the name of the weight that they change."""


class Adapted(Weights):
    """A LoRA adapter on its base: merged in float32, then cast to the base's dtype."""

    def __init__(self, base: Weights, pairs: Pairs, label: str) -> None:
        """Raises:
        UserError: the adapter changes a weight that the base has not.
        """
        self.label, self._base, self._pairs = label, base, pairs
        absent = sorted(set(pairs) - set(base.kept))
        if absent:
            raise UserError(
                f"the adapter in {label} changes {absent[0]}, which {base.label} does not have; give its own base"
            )
        self.kept, self.tied, self.device = base.kept, base.tied, base.device

    @property
    def has_deltas(self) -> bool:
        """Always: B A is known in float32."""
        return True

    def read(self, name: str) -> Tensor:
        """W + scale B A."""
        weight = self._base.read(name)
        if name not in self._pairs:
            return weight
        delta = self._product(name)
        return (weight.float() + delta).to(weight.dtype)

    def delta(self, name: str, base: Tensor) -> Tensor:
        """Scale B A itself, before it meets the base's rounding."""
        return self._product(name) if name in self._pairs else torch.zeros_like(base, dtype=torch.float32)

    def _product(self, name: str) -> Tensor:
        down, up, scale = self._pairs[name]
        return scale * (up.float() @ down.float())


def pairs_of(config: Mapping[str, Any], tensors: Mapping[str, Tensor], label: str) -> Pairs:
    """An adapter in PEFT's form.

    Raises:
        UserError: it is no plain LoRA.
    """
    strange = [name for name in tensors if not name.endswith((".lora_A.weight", ".lora_B.weight"))]
    kind = str(config.get("peft_type", "LORA")).rpartition(".")[2]
    if strange or config.get("use_dora") or kind != "LORA":
        what = strange[0] if strange else "DoRA" if kind == "LORA" else kind
        raise UserError(
            f"the adapter in {label} is no plain LoRA ({what}); "
            "merge it into its base (PEFT's merge_and_unload), and compare the two model folders"
        )
    pairs = {}
    for name, down in tensors.items():
        if name.endswith(".lora_A.weight"):
            module = name.removesuffix(".lora_A.weight")
            plain = module.removeprefix(PREFIX)
            scale = scaling(config, plain, down.shape[0])
            pairs[f"{plain}.weight"] = (down, tensors[f"{module}.lora_B.weight"], scale)
    return pairs


class Held(Weights):
    """Weights in memory, with the float32 masters of those that were trained in masters."""

    def __init__(
        self,
        label: str,
        weights: Mapping[str, Tensor],
        tied: Mapping[str, str],
        masters: Mapping[str, Tensor],
        device: torch.device,
    ) -> None:
        """`tied` and `masters` by the names of `weights`; all on `device`."""
        names = {dtype: name for name, dtype in DTYPES.items()}
        self.label, self._weights, self._masters, self.tied, self.device = label, weights, masters, tied, device
        self.kept = {n: Kept(names.get(t.dtype, str(t.dtype)), tuple(t.shape)) for n, t in weights.items()}

    @property
    def has_deltas(self) -> bool:
        """Whether there are masters."""
        return bool(self._masters)

    def read(self, name: str) -> Tensor:
        """The weight in the model's dtype."""
        return self._weights[name]

    def delta(self, name: str, base: Tensor) -> Tensor:
        """Master minus base."""
        return self._masters.get(name, self._weights[name]).float() - base.float()


def held(
    label: str,
    weights: Mapping[str, Tensor],
    masters: Mapping[str, Tensor] | None = None,
    device: torch.device = Weights.device,
) -> Held:
    """Weights in memory, on `device`; those that are there already are not copied."""
    here = {name: tensor.detach().to(device) for name, tensor in weights.items()}
    wide = {name: tensor.to(device) for name, tensor in (masters or {}).items()}
    return Held(label, here, tied_head(here), wide, device)


def of_learner(learner: Learner | LearnerGroup, base: Weights, label: str) -> Weights:
    """A learner's effective weights, where `base` is: its adapter on that, or all of them with their masters."""
    form = learner.policy.adapter()
    if form is None:
        return held(label, dict(learner.policy.weights()), learner.masters(), base.device)
    config, tensors = form
    return Adapted(base, pairs_of(config, {n: t.detach().to(base.device) for n, t in tensors.items()}, label), label)
