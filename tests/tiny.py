"""Small trainings that several test modules share; each is done once in a process."""

from functools import cache

import omnisurv as om
from omnisurv.simulation import simulate

SIZES = {"genes": 60, "cpgs": 40, "proteins": 20}


def recipe(preset="small", **settings):
    """Return impuTMAE small enough for seconds."""
    small = {
        "dim": 16,
        "heads": 2,
        "mlp": 32,
        "decoder_dim": 16,
        "decoder_mlp": 32,
        "trunk": 1,
        "members": 1,
    }
    pretrain = {"epochs": 3, "every": 1, "patience": None, **settings.pop("pretrain", {})}
    finetune = {"epochs": 3, **settings.pop("finetune", {})}
    return om.get_recipe(
        f"imputmae:{preset}", **{**small, **settings}, pretrain=pretrain, finetune=finetune
    )


@cache
def simulated(patients=140, seed=1, missing=0.35):
    return simulate(patients=patients, seed=seed, missing=missing, **SIZES)


@cache
def parts(patients=140, seed=1):
    return simulated(patients, seed).to_cohort().split()


@cache
def pretrained(**settings):
    return om.pretrain(recipe(**settings), parts()[0])


@cache
def survival(**settings):
    return om.finetune(pretrained(**settings), parts()[0])


@cache
def fusion():
    """A model whose head reads tokens, trained by gradient from scratch."""
    return om.finetune(recipe(omics="fusion", drop_rate=0.3), parts()[0])


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
