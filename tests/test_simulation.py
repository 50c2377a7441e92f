import hashlib

import numpy as np
import pandas as pd
import pytest
from lifelines.utils import concordance_index

from omnisurv.data.spec import DataSpec
from omnisurv.errors import InputError
from omnisurv.simulation import remove_cells, simulate, write

OMICS = ["rna", "dnam", "cnv_arm", "protein"]
STAR = [
    "gene_id",
    "gene_name",
    "gene_type",
    "unstranded",
    "stranded_first",
    "stranded_second",
    "tpm_unstranded",
    "fpkm_unstranded",
    "fpkm_uq_unstranded",
]


@pytest.fixture(scope="module")
def simulated():
    return simulate(320, seed=0)


@pytest.fixture(scope="module")
def small():
    return simulate(60, seed=2, genes=40, cpgs=30, proteins=12)


@pytest.fixture(scope="module")
def folder(small, tmp_path_factory):
    return write(small, tmp_path_factory.mktemp("simulated")).parent


def same(a, b):
    pd.testing.assert_frame_equal(a.availability, b.availability)
    pd.testing.assert_frame_equal(a.clinical, b.clinical)
    pd.testing.assert_series_equal(a.oracle_risk, b.oracle_risk)
    for name in a.truth:
        pd.testing.assert_frame_equal(a.observed(name), b.observed(name))


def mask_only_c(simulated, within=None):
    """Harrell C of a ridge on availability alone, in sample: what the gaps can tell at most."""
    from sklearn.linear_model import Ridge

    who = simulated.time.dropna().index
    if within is not None:
        who = who.intersection(simulated.patients.index[simulated.patients["project"] == within])
    flags = simulated.availability.loc[who].astype(float)
    died_early = simulated.event[who] / np.log1p(simulated.time[who])
    risk = Ridge(1.0).fit(flags, died_early).predict(flags)
    return concordance_index(simulated.time[who], -risk, simulated.event[who])


def test_same_seed_same_cohort():
    same(simulate(50, seed=5), simulate(50, seed=5))
    assert not simulate(50, seed=5).latent.equals(simulate(50, seed=6).latent)


@pytest.mark.parametrize("pictures", [False, True])
def test_a_seed_stands_for_the_same_values_for_good(pictures):
    drawn = simulate(40, seed=7, genes=12, cpgs=10, proteins=6, pictures=pictures)
    digest = hashlib.sha256()
    has = drawn.availability[["clinical", *OMICS]].astype(int)
    observed = (drawn.observed(name) for name in drawn.truth)
    for frame in (has, drawn.clinical, drawn.latent.round(6), *observed):
        digest.update(frame.to_csv(float_format="%.4f").encode())
    assert digest.hexdigest() == "33b85f9409f9bfc302f0a3b8b3ef86a9b3ba2f2701a5be793367d6c5b523830e"


def test_the_truth_does_not_depend_on_the_gaps():
    gappy, whole = simulate(50, seed=5), simulate(50, seed=5, missing=0.0)
    blind = simulate(50, seed=5, informative=False)
    for other in (whole, blind):
        pd.testing.assert_series_equal(gappy.time, other.time)
        for name in gappy.truth:
            pd.testing.assert_frame_equal(gappy.truth[name], other.truth[name])
    assert whole.availability.to_numpy().all()


@pytest.mark.parametrize("seed", range(4))
def test_oracle_and_event_rate_are_where_they_should_be(seed):
    simulated = simulate(320, seed=seed)
    assert 0.75 < simulated.oracle_c_index() < 0.88
    for project in ("LGG", "GBM"):
        inside = simulated.patients.index[simulated.patients["project"] == project]
        assert 0.65 < simulated.oracle_c_index(inside) < 0.87
    assert abs(simulated.event.mean() - 0.55) < 0.03
    assert (simulated.time.dropna() >= 1).all()
    assert 0.0 < simulated.time.isna().mean() < 0.06
    assert simulated.time.isna().equals(simulated.event.isna())


def test_true_curves_agree_with_what_happened():
    from lifelines import KaplanMeierFitter

    simulated = simulate(2000, seed=1, genes=10, cpgs=10, proteins=5)
    known = simulated.time.dropna().index
    fit = KaplanMeierFitter().fit(simulated.time[known], simulated.event[known])
    days = [200, 500, 1000, 2000]
    expected = simulated.survival_function(days)[known].mean(axis=1)
    seen = [float(fit.predict(day)) for day in days]
    np.testing.assert_allclose(expected, seen, atol=0.03)


@pytest.mark.parametrize("missing", [0.1, 0.35, 0.6])
def test_share_of_missing_cells_is_what_was_asked_for(missing):
    simulated = simulate(300, seed=1, missing=missing, genes=20, cpgs=20, proteins=5)
    assert abs(1.0 - simulated.availability[OMICS].to_numpy().mean() - missing) < 0.01
    assert simulated.availability.any(axis=1).all()
    single = simulated.availability.sum(axis=1) == 1
    assert single.any()


def test_informative_gaps_tell_the_outcome_pooled_but_not_within_a_project():
    sizes = {"genes": 5, "cpgs": 5, "proteins": 5}
    informative = simulate(3000, seed=0, **sizes)
    assert mask_only_c(informative) > 0.57
    assert mask_only_c(informative, "LGG") < 0.55
    assert mask_only_c(informative, "GBM") < 0.55
    blind = simulate(3000, seed=0, informative=False, **sizes)
    assert mask_only_c(blind) < 0.54


def test_values_lie_around_the_stated_mean_with_the_stated_noise(simulated):
    protein = (simulated.truth["protein"] - simulated.mean["protein"]) / simulated.noise["protein"]
    beta = simulated.truth["dnam"]
    logit = np.log(beta / (1.0 - beta))
    dnam = (logit - simulated.mean["dnam"]) / simulated.noise["dnam"]
    for z, gaussian in ((protein, False), (dnam, True)):
        inside = (z.abs() <= 1.6449).to_numpy().mean()
        assert abs(z.to_numpy().std() - 1.0) < 0.05
        assert abs(inside - 0.9) < (0.01 if gaussian else 0.03)


def test_values_look_like_their_kind(simulated):
    rna, dnam = simulated.truth["rna"], simulated.truth["dnam"]
    assert rna.to_numpy().min() >= 0.0
    assert (rna.max() / rna.median()).median() > 5  # heavy tails
    assert (rna.std() < 0.1).any()  # genes for a filter to drop
    assert dnam.to_numpy().min() > 0.0
    assert dnam.to_numpy().max() < 1.0
    assert set(np.unique(simulated.truth["cnv_arm"])) == {-1.0, 0.0, 1.0}
    assert simulated.truth["cnv_arm"].shape[1] == 39
    holes = simulated.observed("dnam").isna().to_numpy().mean()
    assert 0.05 < holes < 0.4


def test_modalities_are_mutually_predictive(simulated):
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import cross_val_predict

    inputs = np.log1p(simulated.truth["rna"])
    target = simulated.truth["protein"]
    guess = cross_val_predict(RidgeCV(np.logspace(0, 5, 11)), inputs, target, cv=5)
    r2 = 1.0 - ((target - guess) ** 2).sum().sum() / ((target - target.mean()) ** 2).sum().sum()
    assert r2 > 0.2


def test_remove_cells_removes_just_so_many_and_leaves_everybody_something():
    whole = simulate(100, seed=0, missing=0.0, genes=5, cpgs=5, proteins=5)
    half = remove_cells(whole, 0.5, seed=1)
    assert half.availability.to_numpy().sum() == 250
    assert half.availability.any(axis=1).all()
    same(half, remove_cells(whole, 0.5, seed=1))
    assert not half.availability.equals(remove_cells(whole, 0.5, seed=2).availability)
    assert whole.availability.to_numpy().all()
    assert not (half.availability & ~whole.availability).to_numpy().any()
    with pytest.raises(InputError, match=r"share=0\.9 would leave patients with nothing"):
        remove_cells(whole, 0.9)


def test_what_cannot_be_simulated_is_refused():
    with pytest.raises(InputError, match=r"missing=1\.5 must lie between 0 and 0\.8"):
        simulate(50, missing=1.5)
    with pytest.raises(InputError, match="patients=3 is too few"):
        simulate(3)


def test_star_files_have_the_layout_of_gdc(small, folder):
    files = sorted(folder.glob("rna/*/*.rna_seq.augmented_star_gene_counts.tsv"))
    lines = files[0].read_text().splitlines()
    assert lines[0] == "# gene-model: GENCODE v36"
    assert lines[1].split("\t") == STAR
    assert [line.split("\t")[0] for line in lines[2:6]] == [
        "N_unmapped",
        "N_multimapping",
        "N_noFeature",
        "N_ambiguous",
    ]
    assert all(line.split("\t")[1:3] == ["", ""] for line in lines[2:6])
    assert all(len(line.split("\t")) == 9 for line in lines[1:])
    table = pd.read_csv(files[0], sep="\t", comment="#").iloc[4:]
    assert table["gene_id"].str.match(r"ENSG\d{11}\.\d+(_PAR_Y)?$").all()
    assert table["gene_id"].str.endswith("_PAR_Y").sum() == 1
    assert set(table["gene_type"]) == {"protein_coding", "lncRNA"}
    split = table["stranded_first"] + table["stranded_second"]
    assert (split == table["unstranded"]).all()
    assert abs(table["tpm_unstranded"].sum() - 1e6) < 10


def test_beta_files_have_no_header_and_two_columns(folder):
    files = sorted(folder.glob("dnam/*/*.methylation_array.sesame.level3betas.txt"))
    sizes = set()
    for file in files:
        rows = [line.split("\t") for line in file.read_text().splitlines()]
        assert all(len(row) == 2 for row in rows)
        assert rows[0][0].startswith("cg")
        sizes.add(len(rows))
    assert len(sizes) == 2  # a small and a large array
    assert any("\tNA" in file.read_text() for file in files)


def test_sample_sheet_lists_every_file_and_more_than_primaries(small, folder):
    sheet = pd.read_csv(folder / "gdc_sample_sheet.tsv", sep="\t")
    assert list(sheet.columns) == [
        "File ID",
        "File Name",
        "Data Category",
        "Data Type",
        "Project ID",
        "Case ID",
        "Sample ID",
        "Tissue Type",
        "Tumor Descriptor",
        "Specimen Type",
        "Preservation Method",
    ]
    for file_id, name in zip(sheet["File ID"], sheet["File Name"], strict=True):
        assert list(folder.glob(f"*/{file_id}/{name}"))
    assert set(sheet["Tumor Descriptor"]) >= {"Primary", "Recurrence"}
    assert {"OCT", "FFPE"} <= set(sheet["Preservation Method"])
    primary = sheet["Sample ID"].str.endswith("-01A")
    assert (sheet["Tumor Descriptor"][primary] == "Primary").all()
    rna = sheet["Data Type"] == "Gene Expression Quantification"
    assert set(sheet["Case ID"][rna & primary]) == set(small.observed("rna").index)


def test_primary_files_hold_the_truth(small, folder):
    sheet = pd.read_csv(folder / "gdc_sample_sheet.tsv", sep="\t")
    primary = sheet["Sample ID"].str.endswith("-01A")
    for row in sheet[primary].head(20).itertuples(index=False):
        path = next(folder.glob(f"*/{row[0]}/{row[1]}"))
        if path.parts[-3] == "rna":
            values = pd.read_csv(path, sep="\t", comment="#", index_col=0)["fpkm_uq_unstranded"]
            values.index = values.index.str.split(".").str[0]
        else:
            values = pd.read_csv(path, sep="\t", header=None, index_col=0).iloc[:, 0]
        known = small.observed(path.parts[-3]).loc[row[5]].dropna()
        np.testing.assert_allclose(values[known.index], known, atol=1e-9)


def test_clinical_table_speaks_gdc(small, folder):
    table = pd.read_csv(folder / "clinical.tsv", sep="\t", dtype=str)
    assert "'--" in set(table["IDH"])
    assert set(table["vital_status"]) <= {"Dead", "Alive", "'--"}
    assert table["case_submitter_id"].str.match(r"TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}$").all()
    site = table["case_submitter_id"].str.slice(5, 7)
    assert (site == table["tissue_source_site"]).all()
    dead = table["vital_status"] == "Dead"
    assert (table["days_to_death"][dead] == table["OS.time"][dead]).all()


def test_truth_folder_holds_everything(small, folder):
    for name in small.truth:
        stored = pd.read_parquet(folder / "truth" / f"complete_{name}.parquet")
        pd.testing.assert_frame_equal(stored, small.truth[name])
    survival = pd.read_parquet(folder / "truth" / "survival.parquet")
    np.testing.assert_allclose(survival["oracle_risk"], small.oracle_risk)


def test_without_pictures_none_are_written_or_drawn(small, folder):
    assert not (folder / "mri").exists()
    assert not (folder / "wsi").exists()
    assert "wsi" not in (folder / "cohort.yaml").read_text()
    assert list(small.availability) == ["clinical", *OMICS]
    said = r"this cohort has no pictures; draw it by simulate\(…, pictures=True\)"
    with pytest.raises(InputError, match=said):
        small.brain(small.patients.index[0])
    with pytest.raises(InputError, match=said):
        small.slide(small.patients.index[0])


def test_writing_is_deterministic(small, folder, tmp_path):
    write(small, tmp_path)
    for file in sorted(folder.rglob("*.tsv")):
        assert (tmp_path / file.relative_to(folder)).read_bytes() == file.read_bytes()


def test_spec_parses(folder):
    spec = DataSpec.load(folder / "cohort.yaml")
    assert list(spec.modalities) == ["clinical", *OMICS]
    assert spec.splits.group == "tissue_source_site"


def test_cohort_in_memory(small):
    cohort = small.to_cohort()
    assert list(cohort.modalities) == ["clinical", *OMICS]
    pd.testing.assert_frame_equal(
        cohort.availability, small.availability.sort_index(), check_names=False
    )
    assert cohort.has_endpoint.sum() == small.time.notna().sum()
    rna = cohort["rna"]
    np.testing.assert_allclose(rna.X, small.observed("rna").loc[rna.obs_names], rtol=1e-6)
    dev, test = cohort.split()
    assert not set(dev.obs["group"]) & set(test.obs["group"])


def test_readers_find_in_the_files_what_memory_holds(small, folder):
    from omnisurv.data.cohort import Cohort

    read, built = Cohort.from_spec(folder / "cohort.yaml"), small.to_cohort()
    pd.testing.assert_frame_equal(read.availability, built.availability, check_names=False)
    for column in ("time", "event", "project", "group"):
        assert read.obs[column].astype(str).equals(built.obs[column].astype(str)), column
    for name in built.modalities:
        ours = built[name].to_df()
        theirs = read[name].to_df()
        measured = ours.columns[ours.notna().any()]
        np.testing.assert_allclose(theirs.loc[ours.index, measured], ours[measured], rtol=1e-5)
        if "type" in built[name].var:
            for column in ("type", "feature"):
                kinds = read[name].var.loc[measured, column]
                assert (kinds == built[name].var.loc[measured, column]).all()
    dropped = read.audit[read.audit["status"] == "dropped"]["reason"].str.cat(sep=" ")
    assert "recurrent" in dropped
    assert "FFPE" in dropped
