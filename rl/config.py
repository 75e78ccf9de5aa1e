"""One strict tree: everything that a run depends on, derived from the parts' own fields.

A recipe is YAML 1.2; `key=value` overrides are dotted. An unknown key fails with the nearest right one. A recipe that
`extends` another says only what it changes: its keys, plain or dotted, act on the other as overrides do.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from ..parts import Options, Part, UserError, find, names, nearest
from ..records import Sampling
from ..rollouts.workers.options import Resources
from .choices import FILE_PATTERN, Choice, describe
from .collapse import Collapse
from .learner.options import LearnerOptions
from .own import own_reward, own_verifier
from .runs.cost import Cost
from .runs.metrics import TrackerName
from .suggestions import explain
from .turning import Turning

NULL = "tag:yaml.org,2002:null"
OWN_REWARD = re.compile(r"rewards\.(?P<name>.+\.py:[A-Za-z_]\w*)(?P<rest>(?:\.\w+)*)")
Filled = TypeVar("Filled", bound=Options)
EXTENDS = "extends"
"""The key by which a recipe names another that it builds on."""
RECIPES = Path(__file__).resolve().parents[1] / "recipes"


def _rewards_schema(schema: dict[str, Any]) -> None:
    """As recipes write them: by name, a weight, or the reward's options and a `weight`."""
    weight = {"type": "number", "description": "Weight in the sum."}
    own = {"anyOf": [weight, {"type": "object"}], "description": "file.py:name, a reward of your own"}
    known = {}
    for name in names("reward"):
        block = find("reward", name).model_json_schema()
        block["properties"] = {**block.get("properties", {}), "weight": weight}
        known[name] = {"anyOf": [weight, block], "description": block.pop("description")}
    schema.update(properties=known, patternProperties={FILE_PATTERN: own}, additionalProperties=False)


class Weighted(Options):
    """One reward and its weight in the sum."""

    weight: float = 1.0
    part: Annotated[Any, Choice("reward", own_reward)]


class Rollouts(Options):
    """How samples are drawn."""

    engine: Annotated[Any, Choice("engine")] = Field(default="local", validate_default=True)
    """What decodes: local, vllm (in workers), gold (the data's own solutions), replay (another run's samples)."""
    workers: int | None = Field(default=None, ge=1)
    """Ray actors that each hold an engine; None is none of their own, or one for an engine that must have it (vllm)."""
    resources: Resources = Resources()
    """What each worker gets."""
    problems: int = Field(default=8, ge=1)
    """Problems a draw."""
    group: int = Field(default=8, ge=1)
    """Samples a problem."""
    max_tokens: int = Field(default=512, ge=1)
    """Longest completion, in tokens."""
    temperature: float = Field(default=1.0, ge=0)
    """Sampling temperature; 0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus: the most likely tokens that hold this much probability; 1 is all."""
    top_k: int = Field(default=0, ge=0)
    """The k most likely tokens; 0 is all."""
    min_p: float = Field(default=0.0, ge=0, le=1)
    """Tokens at least this likely relative to the likeliest; 0 is all."""
    stop: list[str] = Field(default_factory=list)
    """Strings that end a completion; they are left out of its text."""
    max_draws: int = Field(default=8, ge=1)
    """Draws a step at most, where the algorithm asks for more groups."""

    max_staleness: int = Field(default=0, ge=0)
    """Updates by which a sample's policy may be older than the one that learns from it; 0 is strictly on-policy. Above
    0 the next step's samples are drawn, one update old, while the learner works; needs `workers`."""
    max_gap: float | None = Field(default=None, gt=0)
    """Largest difference of a sampled token's log-prob between engine and learner, nats; beyond it the run stops. None
    is 1e-3 in float32 and 1 in bfloat16."""

    def sampling(self) -> Sampling:
        """The settings that each request carries."""
        return Sampling(self.max_tokens, self.temperature, self.top_p, self.top_k, self.min_p, tuple(self.stop))


class Checkpoints(Options):
    """When the state is saved."""

    every: int = Field(default=10, ge=1)
    """Steps between checkpoints; the last step always has one."""
    keep: Annotated[int, Field(ge=1)] | Literal["turning-point"] = 2
    """Newest checkpoints to keep; the best is kept besides. `turning-point` keeps the newest two, the best, and of each
    turning point (see `turning`) the one at it or the last before it."""

    @property
    def newest(self) -> int:
        """How many of the newest are kept."""
        return 2 if self.keep == "turning-point" else self.keep


class Tracking(Options):
    """How the run watches which parameters change."""

    every: int = Field(default=10, ge=0)
    """Steps between counts of changed weights, against the run's model; at checkpoints there is a whole map, too. 0 is
    none of both."""


class Evaluation(Options):
    """How the policy is measured on held-out problems: before, after and (smaller) while training."""

    every: int = Field(default=0, ge=0)
    """Steps between evaluations while training; 0 is none."""
    problems: int = Field(default=256, ge=0)
    """Held-out problems measured before and after training; 0 leaves both out."""
    n: int = Field(default=64, ge=1)
    """Samples a problem before and after training: pass@N up to this N."""
    online_problems: int = Field(default=64, ge=1)
    """Held-out problems measured while training: the first of those above."""
    online_samples: int = Field(default=8, ge=1)
    """Samples a problem while training."""
    uplift: int = Field(default=0, ge=0)
    """Samples a problem of the first evaluation, at most `n`, whose likelihood is measured again at the end: the share
    of right ones that training made likelier, by rank. 0 is none; the paper takes 32."""
    loss_every: int = Field(default=0, ge=0)
    """Steps between measurements of the loss on the held-out problems' own solutions, nats a token; 0 is none."""
    engine: Annotated[Any, Choice("engine")] = Field(default="local", validate_default=True)
    """What decodes here where the rollouts' own engine draws nothing from the policy (gold, replay)."""
    temperature: float | None = Field(default=None, ge=0)
    """Sampling temperature; None is the rollouts'."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Longest completion in tokens; None is the rollouts'."""

    @model_validator(mode="after")
    def _enough_samples(self) -> Evaluation:
        if self.uplift > self.n:
            raise ValueError(f"uplift={self.uplift} asks for more samples than n={self.n} draws; raise n or lower it")
        return self


def _recipe_schema(schema: dict[str, Any]) -> None:
    """As recipes may be written: with `extends`, by which nothing else is required and keys may be dotted."""
    text = "A recipe that this one builds on, by its name or path; the other keys, plain or dotted, are laid over it."
    schema["properties"] = {EXTENDS: {"type": "string", "description": text}, **schema["properties"]}
    schema["patternProperties"] = {r"^[a-z_]+\..": {"description": "A dotted key, in a recipe that extends another."}}
    schema["anyOf"] = [{"required": schema.pop("required")}, {"required": [EXTENDS]}]


class Config(Options):
    """A whole run."""

    model_config = ConfigDict(json_schema_extra=_recipe_schema)

    model: str
    """A Hugging Face id, a model folder, shape:NAME (random weights), or recipe:NAME (made by that recipe, cached)."""
    data: Annotated[Any, Choice("data")]
    """Where problems come from."""
    out: str | None = None
    """The run's folder; None is runs/<recipe>-<n>, the next free number."""
    seed: int = Field(default=0, ge=0)
    """What every random choice of the run derives from."""
    steps: int = Field(default=100, ge=0)
    """Updates; may be raised on a resume."""
    init_adapter: str | None = None
    """A PEFT adapter folder to start from."""
    rollouts: Rollouts = Rollouts()
    verifier: Annotated[Any, Choice("verifier", own_verifier)] = Field(default="math", validate_default=True)
    """What judges completions."""
    min_gold_rate: float = Field(default=0.98, ge=0, le=1)
    """Share of the data's own gold answers that the verifier must find right, else nothing is trained; 0 asks none."""
    rewards: dict[str, Weighted] = Field(
        default={"accuracy": 1.0}, validate_default=True, json_schema_extra=_rewards_schema
    )
    """Rewards by name, each with a weight, or with options and a `weight`; their weighted sum is the reward."""
    shaping: Annotated[Any, Choice("shaping")] = Field(default="none", validate_default=True)
    """How a group's finished sum is reweighted."""
    algorithm: Annotated[Any, Choice("algorithm")] = Field(default="grpo", validate_default=True)
    """How rewards become an update."""
    learner: LearnerOptions = LearnerOptions()
    checkpoint: Checkpoints = Checkpoints()
    eval: Evaluation = Evaluation()
    tracking: Tracking = Tracking()
    collapse: Collapse = Collapse()
    turning: Turning = Turning()
    cost: Cost = Cost()
    trackers: list[TrackerName] = Field(default_factory=list)
    """Where metrics go besides metrics.jsonl."""

    @field_validator("rewards", mode="before")
    @classmethod
    def _expand(cls, value: Any, info: ValidationInfo) -> Any:
        """`accuracy: 2` and `cosine: {max_len: 100, weight: 2}` both become a weight and a part."""
        if not isinstance(value, Mapping):
            return value
        return {name: _weighted(name, entry) for name, entry in value.items()}

    def eval_sampling(self) -> Sampling:
        """The sampling settings of evaluations."""
        temperature, tokens = self.eval.temperature, self.eval.max_tokens
        given = {"temperature": temperature, "max_tokens": tokens}
        return replace(self.rollouts.sampling(), **{k: v for k, v in given.items() if v is not None})


def read_recipe(name: str) -> tuple[str, dict[str, Any]]:
    """A recipe's short name and its raw tree, by its name in `recipes/` or by a path; laid over what it extends.

    Raises:
        UserError: there is no such recipe, it is not YAML, or recipes extend each other in a circle.
    """
    path = _recipe_file(name)
    return path.stem, _read_tree(path, ())


def _read_tree(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """The raw tree of a recipe's file; `above` are those that extend it, the first of which was asked for."""
    chain = (*above, path.resolve())
    if len(set(chain)) < len(chain):
        circle = " -> ".join(file.stem for file in chain[chain.index(chain[-1]) :])
        raise UserError(f"recipes extend each other in a circle: {circle}; take `{EXTENDS}` out of one of them")
    tree = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    if not isinstance(tree, dict):
        raise UserError(f"{path} is not a recipe: it must be a mapping of keys such as model, data and rewards")
    if EXTENDS not in tree:
        return tree
    below = tree.pop(EXTENDS)
    if not isinstance(below, str):
        raise UserError(f"{path}: {EXTENDS} must be the name or path of one recipe, not {below!r}")
    merged = _read_tree(_recipe_file(below, path.parent), chain)
    try:
        return with_overrides(merged, tree)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _recipe_file(name: str, folder: Path = Path()) -> Path:
    """Where a recipe stands; a path is relative to `folder`, that of the recipe that extends it."""
    path = folder / name if name.endswith((".yaml", ".yml")) else RECIPES / f"{name}.yaml"
    if not path.is_file():
        close = nearest(name, recipe_names())
        hint = f"did you mean {close!r}?" if close else f"choose one of {', '.join(recipe_names())}"
        raise UserError(f"there is no recipe {name!r}; {hint} (or give the path of a .yaml file)")
    return path


def with_overrides(tree: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A raw tree with dotted keys on top, in their order: each sets one key, a whole block replaces a block."""
    merged = _copy(tree)
    for key, value in overrides.items():
        _set(merged, _split(key), value)
    return merged


def recipe_names() -> tuple[str, ...]:
    """The recipes that come with the package."""
    return tuple(sorted(path.stem for path in RECIPES.glob("*.yaml")))


def parse_overrides(texts: Sequence[str]) -> dict[str, Any]:
    """`key=value` texts as dotted keys and YAML 1.2 values.

    Raises:
        UserError: a text is not of that form.
    """
    overrides = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UserError(f"{text!r} is not an override; write it as key=value, e.g. learner.lr=1e-4")
        overrides[key] = parse_yaml(value, text)
    return overrides


def resolve(tree: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> Config:
    """The strict configuration of a raw tree with dotted overrides on top.

    Raises:
        UserError: an unknown key (with the nearest right one), or a value of the wrong kind.
    """
    config = _share_max_tokens(filled(Config, tree, overrides or {}))
    if config.checkpoint.keep == "turning-point" and config.turning.reward not in config.rewards:
        raise UserError(
            f"checkpoint.keep=turning-point watches the reward {config.turning.reward!r}, which this recipe does not "
            f"have: add it to rewards, or set turning.reward to one of {', '.join(config.rewards)}"
        )
    return config


def filled(model: type[Filled], tree: Mapping[str, Any], overrides: Mapping[str, Any]) -> Filled:
    """The options of `model` that a raw tree with dotted overrides on top says.

    Raises:
        UserError: an unknown key (with the nearest right one), or a value of the wrong kind.
    """
    merged = with_overrides(tree, overrides)
    _name_defaults(model, merged)
    try:
        return model.model_validate(merged)
    except ValidationError as error:
        raise UserError(explain(error, model, merged)) from None


def to_yaml(config: Config) -> str:
    """The resolved configuration, such that `resolve(parse_yaml(text))` gives it again."""
    return dump_yaml(to_tree(config))


def dump_yaml(tree: Mapping[str, Any]) -> str:
    """Plain values as YAML 1.2 for a reader."""
    stream = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.width = 110
    yaml.representer.add_representer(type(None), lambda dumper, _: dumper.represent_scalar(NULL, "null"))
    yaml.dump(tree, stream)
    return stream.getvalue()


def to_tree(config: Config) -> dict[str, Any]:
    """The resolved configuration as plain values, in the shape that recipes have."""
    tree = config.model_dump(mode="json")
    tree["rewards"] = {
        name: {"weight": w.weight, **_without_name(describe(w.part))} for name, w in config.rewards.items()
    }
    return tree


def parse_yaml(text: str, where: str) -> Any:
    """YAML 1.2 (PyYAML reads 1.1, where 1e-6 is a text and no is false)."""
    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        first = str(error).splitlines()[0]
        raise UserError(f"{where} is not valid YAML: {first}") from None


def first_comment(text: str) -> str:
    """The first line of a YAML text, if it is a comment: what the file is for."""
    first = text.partition("\n")[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""


def _share_max_tokens(config: Config) -> Config:
    """Parts that must know the longest completion, and were not told another, take it from the rollouts."""

    def told(part: Part) -> Part:
        if "max_tokens" in type(part).model_fields and getattr(part, "max_tokens") is None:  # noqa: B009 (not on Part)
            return type(part)(**{**part.model_dump(), "max_tokens": config.rollouts.max_tokens})
        return part

    rewards = {name: w.model_copy(update={"part": told(w.part)}) for name, w in config.rewards.items()}
    return config.model_copy(update={"algorithm": told(config.algorithm), "rewards": rewards})


def _weighted(name: str, entry: Any) -> Any:
    if isinstance(entry, Weighted):
        return entry
    if isinstance(entry, bool) or not isinstance(entry, int | float | Mapping):
        raise ValueError(f"{name} needs a weight (a number), or a block of options with a weight")
    if isinstance(entry, Mapping):
        options = {key: value for key, value in entry.items() if key != "weight"}
        return {"weight": float(entry.get("weight", 1.0)), "part": {"name": name, **options}}
    return {"weight": float(entry), "part": name}


def _without_name(block: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in block.items() if key != "name"}


def _copy(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: _copy(value) for key, value in tree.items()}
    return [_copy(value) for value in tree] if isinstance(tree, list) else tree


def _split(dotted: str) -> list[str]:
    """The keys of a dotted path; in `rewards.path/to/mine.py:short.weight` the dots of the file separate nothing."""
    own = OWN_REWARD.fullmatch(dotted)
    if own is None:
        return dotted.split(".")
    return ["rewards", own["name"], *own["rest"].split(".")[1:]]


def _set(tree: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set one dotted key; a bare word on the way becomes its block, a whole block is replaced."""
    for key in path[:-1]:
        below = tree.get(key)
        if isinstance(below, str):
            below = {"name": below}
        elif isinstance(below, int | float) and not isinstance(below, bool):
            below = {"weight": below}  # rewards.accuracy.x=… on a reward given by its weight alone
        elif below is None:
            below = {}
        if not isinstance(below, dict):
            raise UserError(f"{'.'.join(path)}: {key} holds {below!r}, which has no keys")
        tree[key] = below
        tree = below
    tree[path[-1]] = value


def _name_defaults(model: type[Options], tree: dict[str, Any]) -> None:
    """A block without a name means the default part: `learner.adapter.r=16` keeps the default adapter."""
    for key, field in model.model_fields.items():
        below = tree.get(key)
        if not isinstance(below, dict):
            continue
        chooses = any(isinstance(mark, Choice) for mark in field.metadata)
        if chooses and "name" not in below and isinstance(field.default, str):
            below["name"] = field.default
        elif isinstance(field.annotation, type) and issubclass(field.annotation, Options):
            _name_defaults(field.annotation, below)
