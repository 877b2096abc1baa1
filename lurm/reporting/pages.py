"""What all pages share: one look (templates/base.html) and one way to write numbers."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def whole(number: float) -> str:
    """A count as people write it.

    >>> whole(124565)
    '124,565'
    """
    return f"{number:,.0f}"


def share(part: float, of: float = 1.0) -> str:
    """A part of something, in percent; nothing of nothing is 0%.

    >>> share(401, 119011), share(0, 0)
    ('0.337%', '0%')
    """
    return f"{100 * part / of if of else 0:.3g}%"


def share_in_column(part: float, of: float = 1.0, digits: int = 1) -> str:
    """As :func:`share`, always with the same digits, so that a column lines up.

    >>> share_in_column(0.0164), share_in_column(1, 99999, 2), share_in_column(0, 9)
    ('1.6%', '<0.01%', '0.0%')
    """
    value = 100 * part / of if of else 0.0
    return f"{value:.{digits}f}%" if value == 0 or value >= 10**-digits else f"<{10**-digits:g}%"


def percent(value: float, digits: int = 1) -> str:
    """A number in percent without its sign, for columns that say so.

    >>> percent(0.72345)
    '72.3'
    """
    return f"{100 * value:.{digits}f}"


def signed_share(value: float) -> str:
    """A change in percent, with a true minus sign.

    >>> signed_share(-0.084)
    '−8.4%'
    """
    return f"{100 * value:+.1f}%".replace("-", "−")


def sentence(words: str) -> str:
    """The words with a capital at the front and all others as they are."""
    return words[:1].upper() + words[1:]


def render(template: str, **values: Any) -> str:
    """The page as one HTML text; everything that is put in is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for filter_ in (whole, share, share_in_column, percent, signed_share, sentence):
        environment.filters[filter_.__name__] = filter_
    return environment.get_template(template).render(**values)
