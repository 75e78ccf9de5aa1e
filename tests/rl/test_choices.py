from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field, ValidationError

from underdog.parts import Options, Part, UserError, find
from underdog.rl.choices import Choice, describe, name_of


class Inner(Options):
    adapter: Annotated[Any, Choice("adapter")] = Field(default="lora", validate_default=True)


class Tree(Options):
    learner: Inner = Inner()


def test_word_block_and_part_mean_the_same():
    lora = find("adapter", "lora")
    for value in ("lora", {"name": "lora"}, lora()):
        assert Inner(adapter=value).adapter == lora()
    assert Inner().adapter == lora()
    assert Inner(adapter={"name": "lora", "r": 4}).adapter.r == 4


def test_errors_keep_the_whole_path():
    with pytest.raises(ValidationError) as caught:
        Tree.model_validate({"learner": {"adapter": {"name": "lora", "r": 0, "rank": 3}}})
    errors = {e["loc"]: e["type"] for e in caught.value.errors()}
    assert errors[("learner", "adapter", "r")] == "greater_than_equal"
    assert errors[("learner", "adapter", "rank")] == "extra_forbidden"


@pytest.mark.parametrize(
    ("value", "kind", "words"),
    [("lorra", "unknown_part", "'lora'"), ({"r": 3}, "part_type", "name"), (3, "part_type", "name")],
)
def test_what_is_no_part_is_refused(value, kind, words):
    with pytest.raises(ValidationError) as caught:
        Tree.model_validate({"learner": {"adapter": value}})
    (error,) = caught.value.errors()
    assert error["type"] == kind
    assert words in error["msg"]
    assert error["loc"] == ("learner", "adapter")


def test_round_trip_in_both_modes():
    tree = Tree.model_validate({"learner": {"adapter": {"name": "lora", "r": 8, "targets": ["q_proj"]}}})
    dumped = tree.model_dump()
    assert dumped["learner"]["adapter"]["name"] == "lora"
    assert dumped["learner"]["adapter"]["r"] == 8
    assert Tree.model_validate(dumped) == tree
    assert tree.model_dump(mode="json")["learner"]["adapter"]["targets"] == ["q_proj"]
    assert Tree.model_validate_json(tree.model_dump_json()) == tree


def test_own_part_from_a_file_keeps_its_name_as_written(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(
        "from underdog.parts import Part\n\nclass Mine(Part):\n    size: int = 2\n\ndef plain(x): ...\n"
    )
    tree = Tree.model_validate({"learner": {"adapter": {"name": "mine.py:Mine", "size": 5}}})
    assert tree.model_dump()["learner"]["adapter"] == {"name": "mine.py:Mine", "size": 5}
    assert Tree.model_validate(tree.model_dump()) == tree
    with pytest.raises(ValidationError, match="derived from Part"):
        Tree.model_validate({"learner": {"adapter": "mine.py:plain"}})
    with pytest.raises(ValidationError, match="holds no 'Min'"):
        Tree.model_validate({"learner": {"adapter": "mine.py:Min"}})


def test_plain_functions_go_through_the_callers_wrapper(tmp_path: Path):
    file = tmp_path / "functions.py"
    file.write_text("def twice(x):\n    return 2 * x\n")

    def wrap(function: Any) -> type[Part]:
        return type("Wrapped", (Part,), {"call": staticmethod(function), "__module__": __name__})

    part: Any = Choice("adapter", wrap).build(f"{file}:twice")
    assert part.call(4) == 8
    assert describe(part) == {"name": f"{file}:twice"}
    assert Choice("adapter", wrap).build(f"{file}:twice") == part


def test_schema_lists_each_part_with_its_bounds():
    schema = Tree.model_json_schema()
    choices = schema["$defs"]["Inner"]["properties"]["adapter"]["anyOf"]
    assert "lora" in choices[0]["enum"]
    lora = next(c for c in choices if c.get("title") == "lora")
    assert lora["properties"]["name"]["const"] == "lora"
    assert lora["properties"]["r"]["minimum"] == 1
    assert lora["properties"]["r"]["description"]
    assert any("pattern" in c for c in choices)


def test_name_of_a_built_part():
    assert name_of(find("adapter", "lora")()) == "lora"
    with pytest.raises(UserError, match="did you mean 'lora'"):
        find("adapter", "lorq")
