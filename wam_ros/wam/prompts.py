"""From an instruction to the text the tokenizer gets.

Byte for byte what the release was trained with: other token ids are another embedding, and they
reset the model's memory of the scene. No torch here.
"""

from __future__ import annotations

import ast
import html
import re

from wam_ros.wam.embodiments import EMBODIMENTS, embodiment

DEFAULT_INSTRUCTION = "Perform the default behavior."

NEGATIVE = (
    "Vibrant colors, overexposed, static, blurry details, text, subtitles, style, artwork, "
    "painting, image, still, grayscale, dull, worst quality, low quality, JPEG artifacts, ugly, "
    "mutilated, extra fingers, bad hands, bad face, deformed, disfigured, mutated limbs, fused "
    "fingers, stagnant image, cluttered background, three legs, many people in the background, "
    "walking backwards."
)
"""Text of the unconditional branch, used as it is."""

_ROBOT = "A multi-view video shows that a robot {p} The video is split into "

TEMPLATES = {
    "droid": _ROBOT
    + "three views: The top view shows the camera view from the robot's wrist, the bottom-left "
    "view shows the camera view from the left exterior camera, and the bottom-right view shows the "
    "camera view from the right exterior camera. During training, one of the two bottom exterior "
    "views may be a black screen (dropped view). The robot {p}",
    "head_and_hands": _ROBOT
    + "four views: The top-left view shows the camera view from the robot's head, the top-right "
    "view shows the camera view from the right hand, the bottom-left view shows the camera view "
    "from the left hand, and the bottom-right view is a black screen (inactive view). The robot "
    "{p}",
    "top_and_sides": _ROBOT
    + "four views: The top-left view shows the top camera, the top-right view shows the right "
    "camera, the bottom-left view shows the left camera, and the bottom-right view is a black "
    "screen. The robot {p}",
    "human": "A single view video shows that a human {p}",
}
"""Prompt by template name; ``{p}`` is the lower-cased instruction."""

# Left in some datasets' annotations by earlier training stages.
_MARKERS = ("<LAPA>", "<DREAM>", "<COTRAIN>")


def prompt(instruction: str | None, tag: str) -> str:
    """Wrap an instruction in the prompt of an embodiment.

    Parameters
    ----------
    instruction
        What the robot should do; None means the default behaviour. A Python literal is taken for
        its value (the first of a list, or a number), as the release does.
    tag
        Embodiment tag, such as ``agibot``.

    Returns
    -------
    str
        The text before cleaning; the tokenizer cleans it (`clean_text`).

    Raises
    ------
    ValueError
        If the embodiment is unknown or has no prompt.
    """
    template = embodiment(tag).template
    if template is None:
        known = ", ".join(t for t, e in EMBODIMENTS.items() if e.template)
        raise ValueError(f"embodiment '{tag}' has no prompt; those with one are {known}")
    text = DEFAULT_INSTRUCTION if instruction is None else instruction
    for marker in _MARKERS:
        text = text.replace(marker, "")
    return TEMPLATES[template].replace("{p}", _literal(text).lower())


def _literal(text: str) -> str:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
    if isinstance(value, list) and value:
        return str(value[0])
    if isinstance(value, (int, float)):
        return str(value)
    return text


def clean_text(text: str) -> str:
    """Repair mojibake and quotes, unescape HTML twice, collapse white space."""
    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return re.sub(r"\s+", " ", text).strip()
