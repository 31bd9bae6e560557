import random
from pathlib import Path

import pytest

from model_store.zoo.text import DataError
from model_store.zoo.tldr import (
    DATA_FILE,
    Example,
    asked,
    opening,
    plain_command,
    plain_instruction,
    read_corpus,
    read_examples,
)
from tests.model_store.zoo import manuals


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("[c]reate an archive", "create an archive"),
        ("E[x]tract with [v]erbose output", "Extract with verbose output"),
        ("Set the [desc]ription", "Set the description"),
        ("Convert [y]AML and ([A]SCII)", "Convert yAML and (ASCII)"),
        ("Search ([s]) for `[FILE]`:", "Search ([s]) for `[FILE]`"),
        ("Read a list[0] of ports.", "Read a list0 of ports"),
    ],
)
def test_mnemonic_marks_leave_instructions(text: str, plain: str) -> None:
    assert plain_instruction(text) == plain


@pytest.mark.parametrize(
    ("code", "plain"),
    [
        ("tar {{[-c|--create]}} {{path/to/file}}", "tar --create path/to/file"),
        ("pkg {{[rei|reinstall]}} {{package}}", "pkg reinstall package"),
        ("rm {{path/to/a path/to/b ...}}", "rm path/to/a path/to/b"),
        ("x --only={{a,b,...}}", "x --only=a,b"),
        ("sort -k {{1|2|3}}", "sort -k 1"),
        ("grep {{'a|b'}} {{file}}", "grep 'a|b' file"),
        ("docker --format '\\{\\{.Names\\}\\}'", "docker --format '{{.Names}}'"),
        ("awk '{print ${{1}}}' {{file}}", "awk '{print $1}' file"),
        ("{{ls}} | {{wc -l}}", "ls | wc -l"),
    ],
)
def test_commands_can_be_read(code: str, plain: str) -> None:
    assert plain_command(code) == plain


def line(text: str, code: str, command: str = "tool", platform: str = "common") -> dict[str, str]:
    return {"command": command, "platform": platform, "text": text, "code": code}


def test_pairs_count_once_and_what_is_no_example_is_left_out(tmp_path: Path) -> None:
    written = [
        line("List files", "ls"),
        line("List files", "ls", platform="osx"),
        line("List files", "dir", platform="windows"),
        line("View documentation for the original command", "tldr ls"),
        line("[Interactive] Quit", "<q>"),
        line("Long", "x" * 241),
        line("Lines", "a\nb"),
        line("Empty", ""),
    ]
    found = read_examples(manuals.folder(tmp_path, written))
    assert [(each.instruction, each.command) for each in found] == [
        ("List files", "ls"),
        ("List files", "dir"),
    ]


def test_words_that_many_programs_use_are_vague(tmp_path: Path) -> None:
    written = [line("Display help", f"tool{place} --help", f"tool{place}") for place in range(4)]
    found = read_examples(manuals.folder(tmp_path, [*written, line("Count words", "wc -w")]))
    assert [each.vague for each in found] == [True] * 4 + [False]


def test_the_split_is_by_program_and_by_example_and_always_the_same(tmp_path: Path) -> None:
    data = manuals.folder(tmp_path)
    corpus = read_corpus(data, share=0.1)
    assert corpus == read_corpus(data, share=0.1)
    programs = {each.program for each in corpus.train}
    assert len({each.program for each in corpus.unknown}) == 6
    assert not programs & {each.program for each in corpus.unknown}
    assert len(corpus.held_out) == 32
    assert not set(corpus.held_out) & set(corpus.train)
    assert len(corpus.train) + len(corpus.held_out) + len(corpus.unknown) == 360


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("not json\n", "line 1: Invalid JSON"),
        ('{"command": "ls"}\n', "line 1: Field required"),
        ("", "0 examples; that is too few"),
    ],
)
def test_other_data_is_refused_with_its_place(content: str, complaint: str, tmp_path: Path) -> None:
    target = manuals.folder(tmp_path) / DATA_FILE
    target.write_text(content)
    with pytest.raises(DataError, match=complaint):
        read_corpus(tmp_path)


def test_missing_data_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_corpus(tmp_path)


def test_a_question_names_its_program_and_its_system() -> None:
    example = Example(("osx", "open"), "Open `a file`", "open path")
    assert asked(example, named=True) == "open: Open `a file`"
    assert asked(example, named=False) == "Open `a file`"
    assert opening(example.system, "x") == "<|system|>macOS<|end|><|user|>x<|end|><|assistant|>"
    assert opening(Example(("common", "open"), "", "").system, "x") == "<|user|>x<|end|><|assistant|>"


def test_loose_questions_vary_in_case_and_quotes() -> None:
    chance = random.Random(0)
    example = Example(("osx", "open"), "Open `a file`", "open path")
    forms = {asked(example, named=False, loosely=chance) for _ in range(50)}
    assert forms == {"Open `a file`", "open `a file`", "Open a file", "open a file"}
