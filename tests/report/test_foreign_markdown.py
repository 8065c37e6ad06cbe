"""Names from files in Markdown: a parser of its own (markdown-it, of rich) sees words in cells, and nothing else."""

import unicodedata
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from made_comparison import made
from markdown_it import MarkdownIt

from cosearch.compare.data import comparison
from cosearch.compare.page import columns, markdown
from cosearch.planning.builtins import load_builtins
from latency_tables.text.markdown import table, word

PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
HOSTILE = (
    *("a|b", "`x`", "\\|", "a\\", "<b>", "<script>alert(1)</script>", "[x](javascript:0)"),
    *("![x](y)", "a\nb|c", "*x*", "\x1b[2J", "|"),
)


def cells(lines: list[str]) -> list[list[str]]:
    """The rows of a table as plain words; only texts are allowed inside."""
    rows: list[list[str]] = []
    for token in PARSER.parse("\n".join(lines)):
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline":
            assert {child.type for child in token.children or ()} <= {"text", "text_special"}, token.children
            rows[-1].append("".join(child.content for child in token.children or ()))
        else:
            assert token.type.split("_")[0] in ("table", "thead", "tbody", "tr", "th", "td"), token.type
    return rows


def expected(text: str) -> str:
    steering = ("Cc", "Cf", "Cs", "Zl", "Zp")
    kept = ["\ufffd" if unicodedata.category(c) in steering and c not in "\n\t" else c for c in text]
    return " ".join("".join(kept).split())


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_name_is_a_word(text):
    assert cells(table(("name", "n"), [[text, 1], ["b", 2]])) == [["name", "n"], [expected(text), "1"], ["b", "2"]]


@given(st.lists(st.text(max_size=12), min_size=1, max_size=3))
@settings(max_examples=200, deadline=None)
@example(["_a_", "~~b~~", "&amp;"])
def test_any_names_keep_their_rows_and_cells(names):
    found = cells(table(("name", "n"), [[name, 1] for name in names]))
    assert [len(row) for row in found] == [2] * (len(names) + 1) and [row[1] for row in found[1:]] == ["1"] * len(names)
    assert [row[0] for row in found[1:]] == [expected(name) for name in names]


def test_ordinary_words_stay_as_they_are():
    for text in ("a2d_x", "1.20 [1.10, 1.30]", "P(> random)", "minatar:breakout", "12 %", "k3_e6"):
        assert word(text) == text


def test_the_page_of_a_comparison_takes_any_name(tmp_path):
    load_builtins()
    result = comparison(made(tmp_path / "c", {"random": [1.0, 2.0], "largest": [2.0, 3.0]}))
    bent = replace(result, strategies=tuple(replace(row, env="a|b`", strategy=f"{row.strategy}|x") for row in result.strategies))
    lines = markdown(bent, ["a (1)-scatter.png"]).split("\n")
    rows = cells([line for line in lines if line.startswith("|")])
    assert {len(row) for row in rows} == {len(columns(bent))} and [row[0] for row in rows[1:]] == ["random|x", "largest|x"]
    assert "## a\\|b\\`" in lines and "![a (1)-scatter.png](a%20%281%29-scatter.png)" in lines
