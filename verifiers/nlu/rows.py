"""From a row of a data set, in whichever layout it came, to flat rows with the columns of the hub's copy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Row = Mapping[str, Any]


def flat(row: Row) -> Iterator[Row]:
    """The rows in a row: each answer of MultiRC's passages, each query of ReCoRD's, WSC's with its pronoun marked.

    Rows that are flat already come back as they are.
    """
    passage = row.get("passage")
    if isinstance(passage, Mapping) and "questions" in passage:
        yield from _answers(row, passage)
    elif isinstance(passage, Mapping) and "qas" in row:
        yield from _queries(row, passage)
    elif "span2_text" in row or "target" in row:
        yield {**row, "marked": _marked(row["text"], {**row, **row.get("target", {})})}
    else:
        yield row


def _answers(row: Row, passage: Row) -> Iterator[Row]:
    for question in passage["questions"]:
        for answer in question["answers"]:
            idx = {"paragraph": row.get("idx"), "question": question.get("idx"), "answer": answer.get("idx")}
            yield {
                "paragraph": passage["text"],
                "question": question["question"],
                "answer": answer["text"],
                "label": answer.get("label"),
                "idx": idx,
            }


def _queries(row: Row, passage: Row) -> Iterator[Row]:
    text = passage["text"]
    # The ends of ReCoRD's spans are inclusive.
    entities = sorted({text[span["start"] : span["end"] + 1] for span in passage["entities"]})
    for query in row["qas"]:
        yield {
            "passage": text,
            "query": query["query"],
            "entities": entities,
            "answers": sorted({answer["text"] for answer in query.get("answers", ())}),
            "idx": {"passage": row.get("idx"), "query": query.get("idx")},
        }


def _marked(text: str, target: Row) -> str:
    """The text with `*him*` where the pronoun stands: at its word index, or the nearest word that holds it.

    Some rows count a word more or less than white space does.
    """
    tokens = text.split()
    pronoun = str(target["span2_text"]).strip()
    index = target["span2_index"]
    near = sorted(range(len(tokens)), key=lambda at: abs(at - index))
    for holds in (lambda token: token.strip(".,;:!?\"'()").lower() == pronoun.lower(), lambda token: pronoun in token):
        for at in near:
            if holds(tokens[at]):
                start = tokens[at].lower().find(pronoun.lower())
                end = start + len(pronoun)
                tokens[at] = f"{tokens[at][:start]}*{tokens[at][start:end]}*{tokens[at][end:]}"
                return " ".join(tokens)
    return text
