"""The texts: the same in every language, complete, and in the terms of the field."""

from __future__ import annotations

import re
from string import Formatter

import pytest

from minicnn.errors import ConfigError
from minicnn.models.registry import MODELS
from minicnn.report.page import HERE, LANGUAGES, Words, read_words
from minicnn.train.recipe import LABELS, LAYER_LABELS, WORDS
from minicnn.train.schedule import SCHEDULES, schedule_for
from tests.docs.words import PROSE


def texts(language: str) -> dict[str, str]:
    """Key -> text, without what is only needed to translate."""
    return {f"{section}.{name}": text for section, entries in read_words(language).items()
            if section not in ("terms", "patterns") for name, text in entries.items()}


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_the_same_texts(language):
    ours, english = texts(language), texts("en")
    assert ours.keys() == english.keys() and LANGUAGES == ("en", "ko")
    assert {key: fields(text) for key, text in ours.items()} == {key: fields(text) for key, text in english.items()}
    assert all(text.strip() for text in ours.values())


def test_what_templates_say_is_in_the_texts():
    used, keys = "".join(path.read_text() for path in [*HERE.glob("templates/*.html"), *HERE.glob("*.py")]), texts("en")
    sections = "|".join({key.partition(".")[0] for key in keys})
    named = set(re.findall(rf'"((?:{sections})\.\w+)"(?! ~)', used))
    assert len(named) > 100 and named <= keys.keys(), named - keys.keys()


def test_english_is_written_in_the_terms_of_the_field():
    def bad(rule, text: str) -> bool:
        text = re.sub(r"\{\w*\}", "", text)
        return bool(re.search(rf"\b({rule.pattern})\b", re.sub(rule.fine or "$^", "", text, flags=re.I), re.I))

    assert [(key, rule.pattern) for key, text in texts("en").items() for rule in PROSE if bad(rule, text)] == []


def test_korean_has_every_term():
    words = Words("ko")
    labels = [*LABELS.values(), *(label.removesuffix(" of") for label in LAYER_LABELS.values()),
              *(word for value, word in WORDS.items() if value not in ("sgd", "adam", "adamw")),
              *(line for model in MODELS.values() for line in model.two_gpus or ()),
              *(model.tested_on for model in MODELS.values())]
    assert [label for label in labels if words.term(label) is None] == []
    assert words.term("something else") is None and Words("en").term("something else") == "something else"


@pytest.mark.parametrize("kind", SCHEDULES)
def test_korean_has_every_schedule(kind):
    for warmup in (0, 2):
        said = schedule_for(kind, 30).in_words() + (", with 2 epochs of warm-up from 0.1" if warmup else "")
        assert not re.search(r"[a-z]{2}", Words("ko").term(said)), Words("ko").term(said)


def test_unknown_language():
    with pytest.raises(ConfigError, match="--language cannot be 'kr': expected one of en, ko"):
        Words("kr")
