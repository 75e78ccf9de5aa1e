"""The warm-up on training sentences: what it shows of labels, and that nothing of validation rows is in it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from underdog.parts import UserError
from underdog.rl.data.glue_warmup import GlueWarmup


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("CoLA", "SST-2"):
        (tmp_path / name).mkdir()
    rows = [f"s\t{n % 2}\t\tBird{n} sang the old song{n} .\n" for n in range(40)]
    (tmp_path / "CoLA/train.tsv").write_text("".join(rows))
    (tmp_path / "CoLA/dev.tsv").write_text("s\t1\t\tSecrets stay secret .\n")
    (tmp_path / "SST-2/train_sentences.tsv").write_text("1\ta joy\n0\ta bore\n")
    (tmp_path / "SST-2/dev.tsv").write_text("1\ta treat\n")
    return tmp_path


def warmup(folder: Path, **options) -> list[str]:
    problem, *others = GlueWarmup(task=["cola", "sst2"], path=str(folder), instructed=False, **options).load(0)
    assert not others
    assert problem.prompt == "Sentence:"
    return problem.info["solutions"]


def test_unknown_rows_have_every_label_once_and_known_rows_their_own(folder: Path):
    unknown = Counter(line.rpartition(" = ")[2] for line in warmup(folder, known=0))
    assert unknown == {"Yes": 40, "No": 40, "Positive": 2, "Negative": 2}
    known = warmup(folder, known=1)
    assert known.count(" a joy = Positive") == 2
    assert all(line.endswith("= Yes") == (int(line.split()[0][4:]) % 2 == 1) for line in known if "Bird" in line)
    part = Counter(line for line in warmup(folder, known=0.3) if "Bird" in line)
    assert 2 <= sum(count == 2 for count in part.values()) <= 25


def test_no_text_of_a_validation_row_is_read(folder: Path, caplog: pytest.LogCaptureFixture):
    with (folder / "CoLA/train.tsv").open("a") as file:
        file.write("s\t1\t\tSecrets stay secret.\n")
    lines = warmup(folder, known=0)
    assert len(lines) == 84
    assert not any("Secrets" in line for line in lines)
    assert "1 training rows left out" in caplog.text


def test_rows_that_begin_otherwise_are_refused(folder: Path):
    with pytest.raises(UserError, match=r"set data\.opening"):
        warmup(folder, opening="Question:")
