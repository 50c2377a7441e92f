"""The data spec that lies beside a written cohort."""

SPEC = """\
# A simulated cohort with known truth (truth/ is for judging, no model may read it).
name: simulated
recipe: imputmae:small
patients: {id: tcga}
endpoint: {table: clinical.tsv, time: OS.time, event: OS, unit: days}
labels:
  project: {table: clinical.tsv, column: project_id, classes: [LGG, GBM]}
strata: [project]
modalities:
  clinical:
    kind: table
    source: {format: table, path: clinical.tsv}
    columns:
      age_at_index: continuous
      gender: categorical
      grade: {type: ordinal, levels: [G2, G3, G4]}
      karnofsky: continuous
      IDH: categorical
      MGMT: categorical
  rna:
    kind: rna
    source: {format: gdc-star, path: rna, sample_sheet: gdc_sample_sheet.tsv}
    value: fpkm_uq
    min_sd: 0.1
  dnam:
    kind: dnam
    source: {format: gdc-sesame, path: dnam, sample_sheet: gdc_sample_sheet.tsv}
  cnv_arm:
    kind: table
    source: {format: matrix, path: cnv_arm.tsv}
  protein:
    kind: table
    source: {format: matrix, path: protein.tsv}
splits:
  test: 0.2
  folds: 5
  group: tissue_source_site      # whole hospitals apart
  stratify: [event, project]
  seed: 0
"""

PICTURES = """\
  t1:
    kind: mri
    source: {format: brats, path: mri, sequence: t1, mapping: mri/mapping.tsv}
    crop: tumour
    size: 16
    patch: 8
  t1ce:
    kind: mri
    source: {format: brats, path: mri, sequence: t1ce, mapping: mri/mapping.tsv}
    crop: tumour
    size: 16
    patch: 8
  t2:
    kind: mri
    source: {format: brats, path: mri, sequence: t2, mapping: mri/mapping.tsv}
    crop: tumour
    size: 16
    patch: 8
  flair:
    kind: mri
    source: {format: brats, path: mri, sequence: flair, mapping: mri/mapping.tsv}
    crop: tumour
    size: 16
    patch: 8
  wsi:
    kind: wsi
    source: {format: slides, path: wsi, sample_sheet: gdc_sample_sheet.tsv}
    tiles: 4
    tile: 64
    mpp: 2.0
    patch: 32
"""
SPEC_WITH_PICTURES = SPEC.replace("splits:\n", f"{PICTURES}splits:\n")

BRATS = """\
# A simulated cohort in the layout of BraTS 2021 (truth/ is for judging, no model may read it).
name: simulated_brats
recipe: bm_mae:tiny
patients: {id: brats}
endpoint: {table: clinical.tsv, time: OS.time, event: OS, unit: days}
labels:
  subtype: {table: clinical.tsv, column: subtype, classes: [LGG, GBM]}
strata: [subtype]
segmentation: {source: {format: brats, path: mri}, labels: brats21}
modalities:
  t1:
    kind: mri
    source: {format: brats, path: mri, sequence: t1}
    crop: centre
    size: 32
    patch: 8
  t1ce:
    kind: mri
    source: {format: brats, path: mri, sequence: t1ce}
    crop: centre
    size: 32
    patch: 8
  t2:
    kind: mri
    source: {format: brats, path: mri, sequence: t2}
    crop: centre
    size: 32
    patch: 8
  flair:
    kind: mri
    source: {format: brats, path: mri, sequence: flair}
    crop: centre
    size: 32
    patch: 8
splits: {test: 0.2, folds: 5, stratify: [event, subtype], seed: 0}
"""
