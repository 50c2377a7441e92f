"""A figure that shows itself in a notebook, though no window of pyplot's has it."""

import io

from matplotlib.figure import Figure

from omnisurv.plots.style import style


class Shown(Figure):
    """A matplotlib figure with a picture for Jupyter, whatever backend is at work."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        with style():
            self.savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()
