"""GLUE and SuperGLUE as problems: the real files where they lie beside the repository, small ones elsewhere."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from pydantic import ValidationError

from underdog.parts import UserError
from underdog.rl.data.glue import Glue
from underdog.rl.data.split import load
from underdog.verifiers.nlu.nlu import Nlu
from underdog.verifiers.nlu.report import reports
from underdog.verifiers.nlu.task import task_names, task_of

REAL = Path(__file__).resolve().parents[3] / "../shared/data"
real = pytest.mark.skipif(not (REAL / "glue").is_dir(), reason="the benchmarks' files are not here")

# Rows of the training file and labels of the validation file, as the benchmarks state them.
VALIDATION = {
    "cola": {"Yes": 721, "No": 322},
    "mrpc": {"Yes": 279, "No": 129},
    "sst2": {"Positive": 444, "Negative": 428},
    "rte": {"Yes": 146, "No": 131},
    "boolq": {"Yes": 2033, "No": 1237},
    "cb": {"Contradiction": 28, "Entailment": 23, "Neutral": 5},
    "copa": {"Option one": 55, "Option two": 45},
    "multirc": {"False": 2773, "True": 2075},
    "wic": {"Same": 319, "Different": 319},
    "wsc": {"No": 66, "Yes": 38},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("CoLA", "RTE", "QQP", "SST-2"):
        (tmp_path / "glue" / name).mkdir(parents=True)
    root = tmp_path / "glue"
    (root / "CoLA/train.tsv").write_text('s\t1\t\tHe "left.\ns\t0\t*\tHim left.\ns\t1\t\tShe left.\n')
    (root / "CoLA/dev.tsv").write_text("s\t0\t*\tHer left.\n")
    rows = [{"premise": f"It rains {n}.", "hypothesis": "Wet.", "label": "entailment"} for n in range(4)]
    (root / "RTE/train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "RTE/val.jsonl").write_text(json.dumps({"premise": "A", "hypothesis": "B", "label": "not_entailment"}))
    head = "\ufeffquestion1\tquestion2\tid\tis_duplicate\r\n"
    (root / "QQP/train.tsv").write_bytes((head + "A?\tB?\t7\t1\r\nC?\t8\nC?\tD?\t9\t0\r\n").encode())
    (root / "SST-2/test.tsv").write_text("index\tsentence\n0\ta joy\n")
    return tmp_path


def glue(folder: Path, task: str | list[str], **options) -> Glue:
    return Glue(task=task, path=str(folder), **options)


@real
@pytest.mark.parametrize("task", sorted(VALIDATION))
def test_the_real_files(task: str):
    problems = glue(REAL, task).load_evaluation(0)
    assert problems is not None
    assert Counter(problem.answer for problem in problems) == VALIDATION[task]
    assert len({problem.id for problem in problems}) == len(problems)
    verdicts = Nlu().judge_all([(problem, problem.solution or "") for problem in problems])
    report = reports(problems, verdicts)[task]
    assert set(report.metrics.values()) == {1.0}
    assert report.golds == report.histogram == VALIDATION[task]
    assert not report.collapsed


@real
def test_the_real_training_files():
    assert len(glue(REAL, "cola").load(0)) == 8551
    assert len(glue(REAL, "mrpc").load(0)) == 3668
    sentences = glue(REAL, "sst2", split="train_sentences").load(0)
    assert len(sentences) == 6920
    assert sentences[1].answer == "Negative"  # "apparently reassembled from the cutting room floor …"


def test_files_without_header_keep_their_quotes(folder: Path):
    problems = glue(folder, "cola").load(0)
    assert [problem.answer for problem in problems] == ["Yes", "No", "Yes"]
    assert str(problems[0].prompt).endswith('Sentence: He "left.')
    assert problems[1].id == "cola/train/1"
    assert problems[1].info == {"task": "cola", "tag": "Judgement"}


def test_the_validation_set_is_held_out(folder: Path):
    found = load(glue(folder, "cola"), 0)
    assert [problem.id for problem in found.held_out] == ["cola/validation/0"]
    assert len(found.train) == 3
    cut = load(glue(folder, "cola", eval_split=None, held_out=1), 0)
    assert (len(cut.train), len(cut.held_out)) == (2, 1)


def test_several_tasks_each_up_to_the_limit(folder: Path):
    data = glue(folder / "glue", ["cola", "RTE"], limit=2)
    assert [p.id for p in data.load(0)] == ["cola/train/0", "cola/train/1", "rte/train/0", "rte/train/1"]
    evaluation = data.load_evaluation(0)
    assert evaluation is not None
    assert [(p.info["task"], p.answer) for p in evaluation] == [("cola", "No"), ("rte", "No")]


def test_a_folder_of_one_task(folder: Path):
    assert len(glue(folder / "glue/CoLA", "cola").load(0)) == 3
    (folder / "glue/CoLA").rename(folder / "mine")
    assert len(glue(folder / "mine", "cola").load(0)) == 3
    with pytest.raises(UserError, match="no file of CoLA called train"):
        glue(folder / "mine", ["cola", "rte"]).load(0)


def test_broken_lines_are_left_out_and_counted(folder: Path, caplog: pytest.LogCaptureFixture):
    problems = glue(folder, "qqp").load(0)
    assert [problem.answer for problem in problems] == ["Yes", "No"]
    assert "1 of 4 lines left out" in caplog.text


def test_withheld_labels_are_left_out_and_counted(folder: Path, caplog: pytest.LogCaptureFixture):
    (folder / "glue/QQP/dev.tsv").write_text("question1\tquestion2\tlabel\nA?\tB?\t-1\nC?\tD?\t0\n")
    assert [problem.id for problem in glue(folder, "qqp").load_evaluation(0) or []] == ["qqp/validation/1"]
    assert "1 rows left out" in caplog.text
    with pytest.raises(UserError, match="none of 1 rows has a label"):
        glue(folder, "sst2", split="test").load(0)


def test_prompts_show_the_first_training_rows_with_their_answers_in_words(folder: Path):
    data = glue(folder, "cola", shots=2)
    (problem,) = data.load(0)  # the rows that are shown are not trained on
    assert problem.id == "cola/train/2"
    shown = [
        '[Sentence: He "left.\n\n<Judgement>Yes</Judgement>]',
        "[Sentence: Him left.\n\n<Judgement>No</Judgement>]",
        "Sentence: She left.",
    ]
    assert str(problem.prompt).split("\n\n", 1)[1] == "\n\n".join(shown)
    (held_out,) = data.load_evaluation(0) or []
    assert str(held_out.prompt).split("\n\n", 1)[1] == "\n\n".join([*shown[:2], "Sentence: Her left."])
    assert held_out.solution == "<Judgement>No</Judgement>"
    with pytest.raises(UserError, match=r"3 labelled rows; data\.shots=4"):
        glue(folder, "cola", shots=4).load(0)


def test_shown_examples_change_neither_which_problems_are_held_out_nor_their_order(folder: Path):
    rows = "".join(f"s\t{n % 2}\t\tThey left {n}.\n" for n in range(40))
    (folder / "glue/CoLA/train.tsv").write_text(rows)
    (folder / "glue/CoLA/dev.tsv").write_text(rows.replace("They", "We"))
    plain, shown = load(glue(folder, "cola"), 0), load(glue(folder, "cola", shots=5), 0)
    assert [p.id for p in plain.held_out] == [p.id for p in shown.held_out]
    assert [p.id for p in plain.train if int(p.id.rpartition("/")[2]) >= 5] == [p.id for p in shown.train]


@pytest.mark.parametrize("task", task_names())
def test_no_supervised_target_or_shown_answer_is_an_id(task: str):
    """The published baseline trained SST-2's negative rows on "No", and six tasks of SuperGLUE on integers."""
    for name, label in task_of(task).labels.items():
        for written in label.gold:
            row = {names[-1]: "x" for column, names in task_of(task).columns.items() if column != "label"}
            row |= dict.fromkeys(task_of(task).group, "0") | {task_of(task).columns["label"][-1]: written}
            problem, shown = task_of(task).problem(row, "p"), task_of(task).show(row, "p")
            assert problem is not None
            assert shown is not None
            assert problem.solution == f"<Judgement>{name}</Judgement>"
            assert shown.endswith(f"{problem.solution}]")
            assert Nlu().judge(problem, problem.solution or "").outcome == "right"


def test_what_is_not_there(folder: Path):
    with pytest.raises(UserError, match=r"no file of MNLI called validation_matched or dev_matched .* in "):
        glue(folder, "mnli").load_evaluation(0)
    (folder / "glue/QQP/dev.tsv").write_text("1\tA?\tB?\t1\n")
    with pytest.raises(UserError, match="no header of QQP.* question1, question2, is_duplicate"):
        glue(folder, "qqp").load_evaluation(0)
    with pytest.raises(ValidationError, match="did you mean 'cola'"):
        Glue(task="colla")
    with pytest.raises(ValidationError, match="twice"):
        Glue(task=["cola", "CoLA"])


def test_the_hub_by_way_of_the_real_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    root = tmp_path / "mirror"
    root.mkdir()
    rows = [{"sentence1": "It rains.", "sentence2": f"Wet {n}.", "label": n % 3 - 1, "idx": n} for n in range(6)]
    for split in ("train", "validation"):
        (root / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = "".join(f"  - {{split: {split}, path: {split}.jsonl}}\n" for split in ("train", "validation"))
    (root / "README.md").write_text(f"---\nconfigs:\n- config_name: rte\n  data_files:\n{files}---\n")
    data = Glue(task="rte", id=str(root))
    assert [(p.id, p.answer) for p in data.load(0)] == [
        ("rte/train/1", "Yes"),
        ("rte/train/2", "No"),
        ("rte/train/4", "Yes"),
        ("rte/train/5", "No"),
    ]
    assert len(data.load_evaluation(0) or []) == 4
    with pytest.raises(UserError, match="could not be loaded"):
        Glue(task="wnli", id=str(root)).load(0)
