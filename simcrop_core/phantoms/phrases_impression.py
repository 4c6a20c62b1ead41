"""Wordings of the Impression: each finding in a few words, and what is said where there is none.

Notation and slots as in ``phrases_lungs``.
"""

from __future__ import annotations

from simcrop_core.phantoms.language_grammar import Template, templates

CONCLUSIONS: dict[str, tuple[Template, ...]] = {
    "Lung nodule": templates(
        "conclusion/lung-nodule",
        "[{Kind} |]nodule {in_place}[ ({size})|].",
        "Nodule of {size} {in_place}.",
        "[Parenchymal|Pulmonary] nodule {in_place}[, follow-up is recommended|].",
    ),
    "Lung mass": templates(
        "conclusion/lung-mass",
        "Mass of {size} {in_place}[{hedge_mass}|].",
        "[{Margin} |]mass {in_place}.",
        "Mass lesion {in_place}, histological evaluation is recommended.",
    ),
    "Lung nodules": templates(
        "conclusion/lung-nodules",
        "{Count} nodules {in_place}.",
        "Nodules {in_place}[, the largest {size}|].",
        "{Count} [{kind} |]nodules {in_place}.",
    ),
    "Lung opacity": templates(
        "conclusion/lung-opacity",
        "[{Pattern} |]ground-glass [opacities|densities] {in_place}[{hedge_infection}|].",
        "Ground glass areas {in_place}.",
        "Opacity of ground-glass type {in_place}[, evaluated in favor of infection|].",
    ),
    "Consolidation": templates(
        "conclusion/consolidation",
        "Consolidation {in_place}[{hedge_infection}|].",
        "[{Pattern} |]consolidation {in_place}[, clinical correlation is recommended|].",
        "Pneumonic consolidation {in_place}.",
    ),
    "Atelectasis": templates(
        "conclusion/atelectasis",
        "Atelectasis, {kind} in type, {in_place}.",
        "Changes of atelectasis {in_place}.",
        "[{Severity} |]collapse (atelectasis) {in_place}.",
    ),
    "Emphysema": templates(
        "conclusion/emphysema",
        "[{Severity} |][{kind} |]emphysema {in_place}.",
        "Changes of emphysema {in_place}.",
        "Findings of emphysema {in_place}.",
    ),
    "Pulmonary fibrotic sequela": templates(
        "conclusion/fibrotic-sequela",
        "Sequelae changes {in_place}.",
        "[{Kind} |]fibrotic sequela {in_place}.",
        "Fibrotic densities {in_place}.",
    ),
    "Pleural effusion": templates(
        "conclusion/pleural-effusion",
        "[{Severity} |]{side} pleural effusion.",
        "Pleural effusion {on_side}.",
        "[{Severity} |]pleural effusion {on_side}.",
    ),
    "Mosaic attenuation pattern": templates(
        "conclusion/mosaic-attenuation",
        "Mosaic attenuation {in_place}[{hedge_mosaic}|].",
        "[{Severity} |]mosaic pattern {in_place}.",
        "Mosaic attenuation of {place}.",
    ),
    "Peribronchial thickening": templates(
        "conclusion/peribronchial-thickening",
        "Peribronchial thickening {in_place}.",
        "Bronchial wall thickening {in_place}.",
        "[{Severity} |]thickening of the bronchial walls {in_place}.",
    ),
    "Bronchiectasis": templates(
        "conclusion/bronchiectasis",
        "[{Kind} |]bronchiectasis {in_place}.",
        "Bronchiectatic changes {in_place}.",
        "[{Severity} |]bronchiectasis {in_place}.",
    ),
    "Interlobular septal thickening": templates(
        "conclusion/septal-thickening",
        "Interlobular septal thickening {in_place}[{hedge_septa}|].",
        "[{Severity} |]septal thickening {in_place}.",
        "Thickened interlobular septa {in_place}.",
    ),
    "Arterial wall calcification": templates(
        "conclusion/arterial-calcification",
        "Atherosclerotic [calcifications|changes] {along}.",
        "Calcified plaques {on_wall}.",
        "Wall calcification of {artery}.",
    ),
    "Cardiomegaly": templates(
        "conclusion/cardiomegaly",
        "[{Severity} |]cardiomegaly.",
        "Enlarged heart.",
        "Increased heart size.",
    ),
    "Pericardial effusion": templates(
        "conclusion/pericardial-effusion",
        "[{Severity} |]pericardial effusion.",
        "Pericardial effusion[ ({size})|].",
        "Effusion in the pericardial space.",
    ),
    "Coronary artery wall calcification": templates(
        "conclusion/coronary-calcification",
        "[{Severity} |]coronary [artery |]calcification.",
        "Calcific plaques in the coronary arteries.",
        "Coronary atherosclerosis.",
    ),
    "Hiatal hernia": templates(
        "conclusion/hiatal-hernia",
        "[{Severity} |]hiatal hernia.",
        "{Kind} type hiatal hernia.",
        "Hiatus hernia.",
    ),
    "Lymphadenopathy": templates(
        "conclusion/lymphadenopathy",
        "Lymphadenopathy {at_station}.",
        "Lymph node enlargement {at_station}.",
        "LAP {at_station}[ ({size})|].",
    ),
    "Medical material": templates(
        "conclusion/medical-material",
        "{Device}.",
        "{Device} in place.",
    ),
}
NORMAL = templates(
    "conclusion/normal",
    "Thoracic CT within normal limits.",
    "Chest CT [examination |]without pathological findings.",
    "Findings are within normal limits.",
    "Normal examination of the chest.",
)
ADVICE = templates(
    "conclusion/advice",
    "Clinical and laboratory correlation is recommended.",
    "Follow-up is recommended.",
    "Evaluation together with earlier examinations is recommended.",
    "Control after treatment is advised.",
)
