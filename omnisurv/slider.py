"""Volumes side by side on a page, with a slider that goes through them."""

import base64
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class Picture:
    """Steps through one volume.

    Attributes:
        title: what it is.
        steps: PNG of each step.
        size: width and height in whatever unit; their ratio counts.
        imputed: whether to frame it.
    """

    title: str
    steps: Sequence[bytes]
    size: tuple[float, float]
    imputed: bool = False


@dataclass(frozen=True, eq=False)
class Stack:
    """Volumes side by side, of which a slider shows the same step of each.

    Attributes:
        label: of the slider, such as ``Axial slice``.
        steps: each step in words, such as ``12 of 64``.
        pictures: of as many steps.
        start: the step shown first, and the only one in print.
    """

    label: str
    steps: Sequence[str]
    pictures: Sequence[Picture]
    start: int = 0


def render_stack(stack: Stack, name: str) -> str:
    """Return the pictures with their slider, which is hidden until the page's script runs.

    Args:
        stack: the pictures.
        name: that the slider's id begins with.
    """
    last, start = len(stack.steps), stack.start + 1
    steps = html.escape(json.dumps(list(stack.steps)))
    label = html.escape(stack.label)
    control = (
        f'<div class="control" hidden><label for="{name}-slider">{label}</label>\n'
        f'<input type="range" id="{name}-slider" min="1" max="{last}" value="{start}" '
        f'autocomplete="off">\n<output for="{name}-slider"></output></div>'
    )
    pictures = "\n".join(_picture(picture, stack) for picture in stack.pictures)
    return (
        f'<div class="stack" data-steps="{steps}">\n{control}\n'
        f'<div class="pictures">\n{pictures}\n</div></div>'
    )


def _picture(picture: Picture, stack: Stack) -> str:
    title = html.escape(picture.title)
    ratio = f"aspect-ratio:{picture.size[0]:.6g}/{picture.size[1]:.6g}"
    images = "\n".join(
        f'<img src="data:image/png;base64,{base64.b64encode(png).decode("ascii")}" '
        f'alt="{title}, {html.escape(f"{stack.label} {step}")}" style="{ratio}"'
        f"{'' if at == stack.start else ' hidden'}>"
        for at, (png, step) in enumerate(zip(picture.steps, stack.steps, strict=True))
    )
    kind = ' imputed"' if picture.imputed else '"'
    return (
        f'<figure class="picture{kind}><div class="steps">\n{images}\n</div>'
        f"<figcaption>{title}</figcaption></figure>"
    )
