"""What the tests of commands share: a small cohort on disk, quick settings, a runner."""

import re
from dataclasses import dataclass

import yaml

from omnisurv.cli import run_command
from omnisurv.simulation import simulate, write

QUICK = (
    "--set", "pretrain.epochs=2", "--set", "members=2",
    "--set", "dim=16", "--set", "decoder_dim=16",
)  # fmt: skip


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def sentence(self):
        """The one line of an error."""
        lines = self.err.strip().splitlines()
        assert self.code == 2, (self.code, self.out, self.err)
        assert len(lines) == 1, lines
        assert "Traceback" not in self.out + self.err
        return lines[0]


def blocks(page, language):
    """Return the code blocks of a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def runner(capsys):
    def call(*words):
        code = run_command([str(word) for word in words])
        said = capsys.readouterr()
        return Answer(code, said.out, said.err)

    return call


def write_cohort(folder, patients=90):
    drawn = simulate(patients=patients, seed=3, missing=0.2, genes=40, cpgs=30, proteins=12)
    return write(drawn, folder)


def edit(spec, change):
    """Change a spec on disk."""
    values = yaml.safe_load(spec.read_text())
    change(values)
    spec.write_text(yaml.safe_dump(values, sort_keys=False))
    return spec
