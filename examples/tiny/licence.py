"""The licence file that stands beside the weights."""

from __future__ import annotations

from tiny.corpus import Part

HEADER = """trimoe-tiny: weights, configuration and tokenizer

These files were made by examples/train_tiny.py of the trimoe project and are released under the Apache
License, Version 2.0 (the LICENSE file of the project). They hold no copy of the text that the model was
trained on. That text is, by Debian package:
"""

FOOTER = """
The Python standard library is Copyright (c) 2001 Python Software Foundation; All Rights Reserved, and is
used under the PSF License Version 2, which permits derivative works: https://docs.python.org/3/license.html.
Of the packages that carry the public-domain texts only the text was used, none of the packaging or programs.
"""


def text(parts: list[Part]) -> str:
    """The whole file for a model trained on `parts`: which texts, from which packages, on what terms."""
    lines = []
    for part in parts:
        versions = ", ".join(f"{name} {version}" for name, version in part.versions.items())
        lines.append(f"\n- {part.source.name}: {part.source.licence}\n  {versions}\n")
    return HEADER + "".join(lines) + FOOTER
