"""The HTML of a report: templates by Jinja, texts by language, and the chart library inside the file."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path

from minicnn.errors import ConfigError, expected_one_of, rounded

HERE = Path(__file__).parent
LANGUAGES = tuple(sorted(path.stem for path in (HERE / "words").glob("*.json")))
INSTALL = "pip install 'minicnn[report]'"


def need_libraries() -> None:
    """ConfigError, with what to install, where a library of the extra "report" is missing."""
    try:
        import jinja2  # noqa: F401
        import plotly  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"minicnn report needs {error.name}, which is not installed; run: {INSTALL}") from error


def read_words(language: str) -> dict[str, dict[str, str]]:
    """The texts of a language: section -> name -> text. ConfigError for a language that there is not."""
    if language not in LANGUAGES:
        raise ConfigError(f"--language cannot be {language!r}: {expected_one_of(language, LANGUAGES)}")
    return json.loads((HERE / "words" / f"{language}.json").read_text(encoding="utf-8"))


class Words:
    """words("curves.title", epochs=3): a text of the language with its values filled in. KeyError for none."""

    def __init__(self, language: str):
        self.language, self._texts = language, read_words(language)

    def __call__(self, key: str, **values) -> str:
        section, _, name = key.partition(".")
        return self._texts[section][name].format(**values)

    def term(self, english: str) -> str | None:
        """A term, or an expression such as "cosine over 30 epochs", in this language; None where it has no words."""
        if self.language == "en":
            return english
        found = self._texts["terms"].get(english, english)
        for pattern, words in self._texts["patterns"].items():
            found = re.sub(pattern, words, found)
        return None if found == english else found


FILTERS = {"n": "{:,}".format, "g": "{:.4g}".format, "mib": lambda nbytes: f"{nbytes / 2**20:,.1f} MiB",
           "percent": lambda share: f"{100 * share:.1f} %", "ms": "{:.2f}".format, "rounded": rounded}


def render(language: str, sections: dict) -> str:
    """The whole page. sections: what build.py has gathered; texts in it are escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    environment = Environment(loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)
    words = Words(language)
    environment.filters |= FILTERS
    environment.globals |= {"t": words, "term": words.term, "language": language, "plotly": Markup(get_plotlyjs()),
                            "raw": partial(_raw, environment)}
    return environment.get_template("report.html").render(sections)


def _raw(environment, name: str):
    """A file of templates/ as it is, such as the style sheet."""
    from markupsafe import Markup

    return Markup(environment.loader.get_source(environment, name)[0])
