"""`--rehearse`: its formulas against hand counts and torch's own counter, what it prints, and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from underdog.kernels import packing
from underdog.rl.cli.main import main
from underdog.rl.config import read_recipe, resolve
from underdog.rl.learner.learner import Learner
from underdog.rl.learner.model import SHAPES, load_base, shape_for, shape_names, skeleton
from underdog.rl.learner.options import LearnerOptions
from underdog.rl.rehearsal import costs
from underdog.rl.rehearsal.cards import CARDS, USUAL, Card, Shares, Work, memory_bytes, stage_seconds
from underdog.rl.rehearsal.costs import Lengths, Passes, Piece, Shape, Trained

RANK = 4
SHORT = Lengths(problems=1, group=4, prompt=5, new=60)
SMALL = Shape(hidden=8, inner=20, layers=3, heads=4, kv_heads=2, head_dim=2, vocabulary=50)


@pytest.fixture(scope="module")
def shape_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Wide enough for products to outweigh attention, with a vocabulary of its own."""
    spec = json.loads((SHAPES / "qwen2-0.5b.json").read_text())
    own = {"hidden_size": 128, "intermediate_size": 320, "num_hidden_layers": 2, "vocab_size": 1000}
    spec["config"] |= own | {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256}
    path = tmp_path_factory.mktemp("shape") / "wide.json"
    path.write_text(json.dumps(spec))
    return f"shape:{path}"


@pytest.fixture
def recipe(shape_file: str, tmp_path: Path) -> Path:
    """A recipe whose data are nowhere."""
    path = tmp_path / "wide.yaml"
    path.write_text(
        f"model: {shape_file}\n"
        "data: {name: file, path: nowhere.jsonl, prompt: problem, max_prompt_tokens: 64, held_out: 0}\n"
        "steps: 720\n"
        "rollouts: {problems: 2, group: 4, max_tokens: 48}\n"
        "algorithm: {name: grpo, kl: 0.04}\n"
        f"learner: {{adapter: {{name: lora, r: {RANK}, alpha: 8}}}}\n"
    )
    return path


def learner(model: str, adapter: str, *, checkpointing: bool) -> Learner:
    kinds: dict[str, Any] = {"lora": {"name": "lora", "r": RANK, "alpha": 8, "dropout": 0.0}, "full": "full"}
    options = {"adapter": kinds[adapter], "gradient_checkpointing": checkpointing}
    return Learner(model, LearnerOptions.model_validate(options), seed=0, steps=1, device="cpu", log=lambda _: None)


def counter() -> FlopCounterMode:
    """torch's, which by itself leaves out sums in place."""

    def added(_: Any, left: Any, right: Any, **__: Any) -> int:
        return 2 * left[0] * left[1] * right[1]

    return FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: added})


def packed(lengths: Lengths) -> packing.Packing:
    draw = np.random.default_rng(0)
    prompts = [np.arange(lengths.prompt)] * lengths.samples
    completions = [draw.integers(50, size=lengths.new) for _ in range(lengths.samples)]
    return packing.pack(prompts, completions, range(lengths.samples))


def sizes(made: Learner, adapter: str) -> Trained:
    base = sum(p.numel() for _, p in made.base_weights())
    return Trained(base, sum(t.numel() for t in made.trained()), whole=adapter == "full")


# --- the shapes ---------------------------------------------------------------------------------------------------


def test_the_shapes_that_stand_for_models_have_their_sizes() -> None:
    # counted by hand from the published configurations, biases and norms included
    known = {"qwen2-0.5b": 494_032_768, "qwen2-1.5b": 1_777_088_000}
    for name, number in known.items():
        assert sum(p.numel() for p in skeleton(f"shape:{name}").parameters()) == number
    assert shape_for("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B") == "qwen2-1.5b"
    assert shape_for("Qwen/Qwen2.5-1.5B-Instruct") is None  # its head is tied


def test_no_two_shapes_stand_for_one_model() -> None:
    every = [m for n in shape_names() for m in json.loads((SHAPES / f"{n}.json").read_text()).get("stands_for", [])]
    assert len(every) == len(set(every)) > 0


def test_the_linear_entries_are_those_of_the_model(shape_file: str) -> None:
    model = load_base(shape_file, seed=0, dtype=torch.float32, device="cpu").model
    linear = sum(m.weight.numel() for n, m in model.named_modules() if n.endswith("_proj"))
    shape = Shape.of(model.config)
    assert (shape.linear, shape.head) == (linear, model.lm_head.weight.numel())


# --- operations ---------------------------------------------------------------------------------------------------


def test_a_forward_by_hand() -> None:
    # a layer: q 8x8, k and v 8x4 each, o 8x8, three of 8x20
    layer = 64 + 32 + 32 + 64 + 3 * 160
    assert SMALL.linear == 3 * layer
    trained, piece = Trained(10_000, 700, whole=False), Piece(tokens=9, scored=5, pairs=45)
    products = 2 * (3 * layer + 700) * 9
    attention = 3 * (2 + 2) * 8 * 45  # layers, multiply and add of q k and of p v, width, pairs
    assert costs.layers_flops(SMALL, trained, piece) == products + attention
    assert costs.scoring_flops(SMALL, trained, piece) == products + attention + 2 * 5 * 8 * 50
    assert costs.forward_flops(SMALL, trained, piece) == products + attention + 4 * 5 * 8 * 50


def test_the_backward_of_trained_weights_makes_two_products_and_of_frozen_ones_one() -> None:
    piece = Piece(tokens=9, scored=0, pairs=0)
    frozen, whole = Trained(10_000, 0, whole=False), Trained(10_000, 10_000, whole=True)
    once = costs.layers_flops(SMALL, frozen, piece)
    assert costs.backward_flops(SMALL, frozen, piece, False) == once
    assert costs.backward_flops(SMALL, whole, piece, False) == 2 * once
    assert costs.backward_flops(SMALL, frozen, piece, True) == 2 * once


@pytest.mark.parametrize("adapter", ["lora", "full"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_formulas_against_torchs_counter(adapter: str, checkpointing: bool, shape_file: str) -> None:
    made = learner(shape_file, adapter, checkpointing=checkpointing)
    shape, trained, (piece,) = Shape.of(made.model_config), sizes(made, adapter), SHORT.pieces(10_000)
    with counter() as forward:
        outputs = made._scorer(packed(SHORT), None, entropy=True)
    with counter() as backward:
        outputs.logp_T.sum().backward()
    with torch.no_grad(), counter() as scoring:
        made._scorer(packed(SHORT), None)
    # attention is counted in whole blocks here, in pairs by the formula: a few per cent of this model
    assert costs.scoring_flops(shape, trained, piece) == pytest.approx(scoring.get_total_flops(), rel=0.05)
    assert costs.forward_flops(shape, trained, piece) == pytest.approx(forward.get_total_flops(), rel=0.05)
    predicted = costs.backward_flops(shape, trained, piece, checkpointing)
    assert predicted == pytest.approx(backward.get_total_flops(), rel=0.08)


def test_the_pieces_are_the_learners_micro_batches() -> None:
    lengths = Lengths(problems=3, group=4, prompt=7, new=20)
    pieces = lengths.pieces(50)
    assert len(pieces) > 3  # a group does not fit, so that a prompt stands in several
    assert sum(piece.scored for piece in pieces) == 3 * 4 * 20
    assert all(piece.tokens <= 50 for piece in pieces)
    (whole,) = lengths.pieces(10_000)
    assert whole.tokens == packed(Lengths(1, 4, 7, 20)).tokens_T.size * 3


# --- decoding -----------------------------------------------------------------------------------------------------


def test_decoding_reads_all_weights_at_each_step_and_all_caches() -> None:
    lengths = Lengths(problems=2, group=3, prompt=4, new=3)
    weights = 2 * (SMALL.linear + 8 * 50)
    position = 2 * 3 * 2 * 2 * 2  # keys and values, layers, key heads, width, bytes
    seen = 6 * (5 + 6)  # the two further tokens of six samples see 5 and 6 positions
    assert costs.decode_bytes(SMALL, lengths, 2, slots=6) == 3 * weights + seen * position
    assert costs.decode_bytes(SMALL, lengths, 2, slots=4) == 2 * 3 * weights + seen * position


def test_a_decoding_step_is_bound_by_what_takes_longest() -> None:
    work = Work(SMALL, Trained(10**6, 1000, False), Lengths(2, 3, 4, 10), Passes(False, 1, 1, False), 2, 1000)
    slow = {"bytes": Card("", 1e18, 1e3, 0.0), "products": Card("", 1e3, 1e18, 0.0)}
    read = costs.decode_bytes(SMALL, work.lengths, 2, 256)
    assert stage_seconds(work, slow["bytes"], Shares(1, 0.5, 0))["decode"] == pytest.approx(read / 500)
    made = costs.decode_flops(SMALL, work.lengths)
    assert stage_seconds(work, slow["products"], Shares(0.5, 1, 0))["decode"] == pytest.approx(made / 500)
    assert stage_seconds(work, Card("", 1e18, 1e18, 0.0), Shares(1, 1, 0.2))["decode"] == pytest.approx(10 * 0.2)


def test_a_card_twice_as_quick_takes_half_the_time_and_epochs_multiply_the_update() -> None:
    lengths, trained = Lengths(2, 3, 4, 10), Trained(10**6, 1000, False)
    once, thrice = (Work(SMALL, trained, lengths, Passes(True, 2, n, True), 2, 1000) for n in (1, 3))
    free = Shares(1.0, 1.0, 0.0)
    slow, quick = Card("", 1e9, 1e9, 0.0, hashing=1e9), Card("", 2e9, 2e9, 0.0, hashing=2e9)
    for name, seconds in stage_seconds(once, slow, free).items():
        assert stage_seconds(once, quick, free)[name] == pytest.approx(seconds / 2)
        more = 3 if name in ("forward", "backward", "optimizer") else 1
        assert stage_seconds(thrice, slow, free)[name] == pytest.approx(more * seconds)


# --- memory -------------------------------------------------------------------------------------------------------


def kept_bytes(made: Learner) -> int:
    """Of all that a forward pass keeps for the backward, parameters and what has no gradient aside, each once."""
    parameters = {p.untyped_storage().data_ptr() for p in made._model.parameters()}
    found: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters and tensor.is_floating_point():
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        hidden = made._scorer._decoder(packed(SHORT), None)
    assert hidden.requires_grad
    return sum(found.values())


def test_the_activations_are_what_autograd_keeps(shape_file: str) -> None:
    made = learner(shape_file, "lora", checkpointing=False)
    shape, trained = Shape.of(made.model_config), sizes(made, "lora")
    predicted = costs.learner_bytes(shape, trained, SHORT.pieces(10_000), 4, checkpointing=False)["activations"]
    assert predicted == pytest.approx(kept_bytes(made), rel=0.15)


def test_the_terms_of_the_memory() -> None:
    trained, lengths = Trained(10_000, 0, whole=False), Lengths(problems=2, group=3, prompt=4, new=11)
    (piece,) = lengths.pieces(1000)
    held = costs.learner_bytes(SMALL, trained, [piece], 2, checkpointing=True)
    kept = 4 * 8 + 3 * 8 + 2 * 4 + 3 * 20
    assert held["weights"] == 20_000
    assert held["optimizer"] == 0
    assert held["activations"] == 2 * piece.tokens * (3 * 8 + kept)
    assert costs.learner_bytes(SMALL, trained, [piece], 2, checkpointing=False)["activations"] == (
        2 * piece.tokens * 3 * kept
    )
    assert held["logits"] == 66 * 50 * (4 + 4 + 2) + 66 * 8 * 4
    # a weight trained in float32 is its own master; a bfloat16 one has one beside it
    whole = Trained(10_000, 10_000, whole=True)
    for size, master in ((4, 12), (2, 16)):
        assert costs.learner_bytes(SMALL, whole, [piece], size, checkpointing=True)["optimizer"] == master * 10_000
    assert costs.engine_bytes(SMALL, 10_000, lengths, 2, slots=4) == 20_000 + 4 * 15 * 48


# --- the command --------------------------------------------------------------------------------------------------


def test_it_takes_a_step_and_prints_all_parts(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = call(monkeypatch, capsys, "train", recipe, "--rehearse")
    assert code == 0
    measured, projected, assumed = out.strip().split("\n\n")
    assert "4 samples of 48 forced tokens after a prompt of 64" in measured
    rows = {line.split()[0]: line.split()[1:] for line in measured.splitlines()}
    for stage in ("load", "publish", "decode", "annotate", "update"):
        seconds, gib = map(float, rows[stage][:2])
        assert seconds > 0
        assert 0.05 < gib < 20
    parts = [float(rows[part][0]) for part in ("forward", "backward", "optimizer")]
    assert 0 < sum(parts) <= float(rows["update"][0]) * 1.01 + 0.002
    assert all(part > 0 for part in parts)
    assert re.search(r"GiB, predicted / measured \d\.\d\d", measured)
    assert "2 x 4 samples of 48 tokens after prompts of 64, 720 steps" in projected
    lines = {card.name: next(line for line in projected.splitlines() if line.startswith(card.name)) for card in CARDS}
    assert all(line.endswith("fits") for line in lines.values())
    assert f"{USUAL.products:.0%} and {USUAL.bandwidth:.0%}" in assumed
    assert "left out: verifying" in assumed
    assert {path.name for path in tmp_path.iterdir()} == {recipe.name}  # no run, nothing else


def test_run_hours_are_the_steps_times_their_seconds(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = call(monkeypatch, capsys, "train", recipe, "--rehearse", "rollouts.max_tokens=180", "steps=36000")
    assert "4 samples of 128 forced tokens" in out  # no more than that, whatever the recipe allows
    row = next(line for line in out.splitlines() if line.startswith("L40S")).split()
    *stages, step, hours = map(float, row[1:9])
    assert step == pytest.approx(sum(stages), abs=0.1)
    assert hours == pytest.approx(10 * step, abs=0.6)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("model=nobody/model-1b", "--rehearse knows no shape of nobody/model-1b: add model=shape:NAME"),
        ("model=recipe:demo-base", "--rehearse knows no shape of recipe:demo-base: add model=shape:NAME"),
        ("model=shape:qwen3-9b", "there is no shape 'qwen3-9b'"),
        ("model=shape:tiny-reader", "this shape takes its words from its training text"),
        ("learner.adapter.targets=[w_proj]", "the model has no module named w_proj"),
        ("learner.adapter.rank=3", "rank"),
    ],
)
def test_bad_input_is_one_sentence(
    override: str,
    sentence: str,
    recipe: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, _, err = call(monkeypatch, capsys, "train", recipe, override, "--rehearse")
    assert code == 2
    assert sentence in err
    assert len(err.strip().splitlines()) == 1


def test_rows_that_the_shape_has_no_room_for_are_told(
    tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(monkeypatch, capsys, "train", tiny_recipe, "--rehearse", "rollouts.max_tokens=128")
    assert code == 2
    assert "takes 192 tokens a sample and this model 128" in err


def test_tinas_recipes_have_a_shape() -> None:
    for name in ("tina-rs1", "tina-rs2", "tina-limr", "tina-openthoughts"):
        assert shape_for(resolve(read_recipe(name)[1]).model) == "qwen2-1.5b"


def test_tina_on_a_card() -> None:
    """The memory that tina-rs2 is projected to need: hand sums of its larger terms."""
    shape = Shape(1536, 8960, 28, 12, 2, 128, 151_936)
    lora = 32 * 28 * (2 * (1536 + 1536) + 2 * (1536 + 256) + 3 * (1536 + 8960))
    work = Work(
        shape, Trained(1_777_088_000, lora, False), Lengths(8, 6, 512, 3584), Passes(False, 1, 1, True), 2, 16384
    )
    held = memory_bytes(work)
    assert lora == 36_929_536
    assert held["weights"] == 2 * 1_777_088_000
    assert held["optimizer"] == 16 * lora
    cache = 48 * (512 + 3584) * 28 * 2 * 2 * 256
    assert held["engine"] == held["weights"] + cache
    assert sum(held.values()) < 24e9  # so that one card of 24 GB holds it


def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str, str]:
    """What the console script does, in this process."""
    monkeypatch.setattr("sys.argv", ["underdog", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err
