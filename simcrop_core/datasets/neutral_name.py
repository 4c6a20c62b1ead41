"""Which names of studies may be shown to anyone: those that can name no person."""

from __future__ import annotations

import re

#: Words that people and data sets name studies by.
_WORDS = (
    "case study scan ct chest thorax lung lungs patient subject sub volume vol image img series "
    "phantom train valid val test trn tst btcv lidc idri coronacases radiopaedia sample example "
    "demo synthetic control"
).split()
_TOKEN = re.compile(rf"(?:{'|'.join(_WORDS)})?(\d{{0,5}})", re.IGNORECASE)
#: Names whose whole form is known: a volume of CT-RATE, a phantom.
_KNOWN = re.compile(r"(?:train|valid)_\d{1,6}(?:_[a-z]{1,2}_\d{1,2})?|phantom-\d{6,9}")
#: More digits may be a number of a hospital, more numbers a date of birth.
_MOST_DIGITS, _MOST_NUMBERS = 5, 2
_LONGEST = 40


def neutral_name(name: str) -> str:
    """The name if it is made of known words and a short number, else ``""``.

    ``case_017`` and ``train_1_a_1`` are; ``DOE_JOHN``, a date and a hospital's number are not.
    """
    if _KNOWN.fullmatch(name):
        return name
    if len(name) > _LONGEST:
        return ""
    found = [_TOKEN.fullmatch(token) for token in re.split(r"[-_ ]", name)]
    numbers = [match[1] for match in found if match is not None and match[1]]
    few = len(numbers) <= _MOST_NUMBERS and len("".join(numbers)) <= _MOST_DIGITS
    return name if all(found) and numbers and few else ""
