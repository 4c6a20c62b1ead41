"""Wordings that a finding is not there: frames that hold for all, and some of each finding's own.

``{noun}`` is the finding as it follows "no", ``{mass}`` as it follows "of"; ``{where}`` is the
place with its preposition. Other slots and the notation are those of ``phrases_lungs``.
"""

from __future__ import annotations

from simcrop_core.phantoms.language_grammar import Template, templates

FRAMES: tuple[Template, ...] = templates(
    "absent",
    "No {noun} [is|was] [noted|identified|found] {where}.",
    "There is no {noun} to be [seen|found] {where}.",
    "{Where}, no {noun} IS SEEN.",
    "Signs of {mass} are absent {where}.",
    "{Mass} [is|was] not [detected|observed|seen] {where}.",
    "No evidence of {mass} [was|is] found {where}.",
    "There [is|was] no finding [compatible with|in favor of] {mass} {where}.",
    "Nothing {where} suggests {mass}.",
    "No [obvious|definite] {noun} IS SEEN {where}.",
    "No finding of {mass} IS SEEN {where}.",
    "The sections show no {noun} {where}.",
    "{Mass} can be excluded {where}.",
    "No {noun} could be [distinguished|demonstrated] {where}.",
)

#: The finding after "no".
NOUNS: dict[str, tuple[str, ...]] = {
    "Medical material": ("medical device", "foreign material", "medical material"),
    "Arterial wall calcification": (
        "arterial wall calcification",
        "calcified atheroma plaque",
        "calcific plaque",
    ),
    "Cardiomegaly": ("cardiomegaly", "enlargement of the heart", "cardiac enlargement"),
    "Pericardial effusion": ("pericardial effusion", "pericardial fluid", "pericardial effusion"),
    "Coronary artery wall calcification": (
        "coronary artery calcification",
        "coronary calcific plaque",
        "calcified coronary atheroma",
    ),
    "Hiatal hernia": ("hiatal hernia", "hiatus hernia", "sliding hernia"),
    "Lymphadenopathy": (
        "enlarged lymph node",
        "pathologically enlarged lymph node",
        "lymphadenopathy",
        "lymph node of pathological size",
    ),
    "Emphysema": ("emphysema", "emphysematous change", "emphysematous area"),
    "Atelectasis": ("atelectasis", "atelectatic change", "area of atelectasis"),
    "Lung nodule": ("nodule", "pulmonary nodule", "nodular lesion"),
    "Lung opacity": ("ground-glass opacity", "ground glass density", "ground-glass area"),
    "Pulmonary fibrotic sequela": (
        "fibrotic sequela",
        "sequela change",
        "fibrotic density increase",
    ),
    "Pleural effusion": ("pleural effusion", "pleural fluid", "effusion"),
    "Mosaic attenuation pattern": (
        "mosaic attenuation pattern",
        "mosaic pattern",
        "mosaic attenuation",
    ),
    "Peribronchial thickening": (
        "peribronchial thickening",
        "bronchial wall thickening",
        "increase in peribronchial thickness",
    ),
    "Consolidation": ("consolidation", "consolidation area", "pneumonic consolidation"),
    "Bronchiectasis": ("bronchiectasis", "bronchiectatic change", "bronchial dilatation"),
    "Interlobular septal thickening": (
        "interlobular septal thickening",
        "thickening of the interlobular septa",
        "septal thickening",
    ),
}

#: The finding after "of".
MASS_NOUNS: dict[str, tuple[str, ...]] = {
    "Medical material": ("foreign material", "medical material", "a medical device"),
    "Arterial wall calcification": (
        "arterial wall calcification",
        "calcific atherosclerosis",
        "mural calcification",
    ),
    "Cardiomegaly": ("cardiomegaly", "cardiac enlargement", "an enlarged heart"),
    "Pericardial effusion": ("pericardial effusion", "pericardial fluid", "pericardial effusion"),
    "Coronary artery wall calcification": (
        "coronary artery calcification",
        "coronary calcification",
        "calcific coronary disease",
    ),
    "Hiatal hernia": ("a hiatal hernia", "herniation", "a hiatus hernia"),
    "Lymphadenopathy": ("lymphadenopathy", "lymph node enlargement", "adenopathy"),
    "Emphysema": ("emphysema", "emphysematous destruction", "emphysema"),
    "Atelectasis": ("atelectasis", "collapse", "volume loss from atelectasis"),
    "Lung nodule": ("a nodule", "a pulmonary nodule", "a nodular lesion"),
    "Lung opacity": ("ground-glass opacity", "ground glass attenuation", "hazy opacity"),
    "Pulmonary fibrotic sequela": ("fibrotic sequela", "scarring", "sequelae fibrosis"),
    "Pleural effusion": ("pleural effusion", "pleural fluid", "effusion"),
    "Mosaic attenuation pattern": ("mosaic attenuation", "a mosaic pattern", "mosaic attenuation"),
    "Peribronchial thickening": (
        "peribronchial thickening",
        "bronchial wall thickening",
        "thickening of the bronchial walls",
    ),
    "Consolidation": ("consolidation", "pneumonic consolidation", "airspace consolidation"),
    "Bronchiectasis": ("bronchiectasis", "bronchial dilatation", "bronchiectasis"),
    "Interlobular septal thickening": (
        "interlobular septal thickening",
        "septal thickening",
        "thickening of the interlobular septa",
    ),
}

# A template with {no_side} speaks of both sides together; with {no_level}, of whole lungs.
OWN: dict[str, tuple[Template, ...]] = {
    "Medical material": templates(
        "medical-material/absent",
        "The chest is free of catheters, tubes and implants.",
        "No catheter, tube or implant IS SEEN.",
        "There are no [implants or catheters|devices] within the sections.",
        "Neither lines nor implanted devices are visible.",
    ),
    "Arterial wall calcification": templates(
        "arterial-calcification/absent",
        "The wall of the aorta is free of calcification.",
        "The aortic wall shows no calcium.",
        "No calcification IS SEEN along the aortic wall.",
        "The contour of the aorta is smooth, without calcified plaques.",
    ),
    "Cardiomegaly": templates(
        "cardiomegaly/absent",
        "The heart is not enlarged.",
        "The cardiothoracic ratio is not increased.",
        "Heart size is not increased.",
        "The heart does not take up more than half of the chest's width.",
    ),
    "Pericardial effusion": templates(
        "pericardial-effusion/absent",
        "The pericardial space is free of [effusion|fluid].",
        "No fluid IS SEEN between the pericardial leaves.",
        "Effusion [is|was] not [observed|detected] in the pericardium.",
        "The pericardial sac is dry.",
    ),
    "Coronary artery wall calcification": templates(
        "coronary-calcification/absent",
        "The coronary arteries are free of calcification.",
        "The coronary artery walls show no calcium.",
        "No calcific plaque IS SEEN along the coronary arteries.",
        "The course of the coronary vessels bears no calcium.",
    ),
    "Hiatal hernia": templates(
        "hiatal-hernia/absent",
        "The esophagogastric junction lies below the diaphragm.",
        "The esophagogastric junction is in its normal place.",
        "No herniation through the esophageal hiatus IS SEEN.",
        "The stomach does not pass above the diaphragm.",
    ),
    "Lymphadenopathy": templates(
        "lymphadenopathy/absent",
        "[Mediastinal and hilar|Mediastinal, hilar and axillary{axillae}] lymph nodes are not "
        "enlarged{no_side}.",
        "No lymph node has reached pathological [size|dimensions] {where}.",
        "No LAP IS SEEN {where}.",
        "All visible lymph nodes are of normal short axis{no_side}.",
        "Lymph nodes of pathological size and appearance [are|were] not [seen|detected] {where}.",
        "No pathological lymph node enlargement IS SEEN {where}.",
    ),
    "Emphysema": templates(
        "emphysema/absent",
        "The parenchyma {in_place} is free of emphysema.",
        "Emphysematous changes ARE not SEEN {in_place}.",
        "No emphysematous aeration increase IS SEEN {in_place}.",
        "No lung tissue has been lost to emphysema {in_place}.",
    ),
    "Atelectasis": templates(
        "atelectasis/absent",
        "Expansion is complete {in_place}, without atelectasis.",
        "Atelectatic densities ARE not SEEN {in_place}.",
        "No volume loss due to atelectasis IS SEEN {in_place}.",
        "No airless lung tissue can be made out {in_place}.",
    ),
    "Lung nodule": templates(
        "lung-nodule/absent",
        "No [suspicious |]nodule or mass IS SEEN {in_place}.",
        "Nodular lesions ARE not SEEN {in_place}.",
        "No nodular space-occupying lesion IS SEEN {in_place}.",
        "The search for nodules {in_place} [is|was] negative.",
        "There are no nodules {in_place}.",
        "No [parenchymal|solid or ground-glass] nodule [is present|was found] {in_place}.",
    ),
    "Lung opacity": templates(
        "lung-opacity/absent",
        "Ground-glass densities ARE not SEEN {in_place}.",
        "There are no ground glass areas {in_place}.",
        "No ground-glass density increase IS SEEN {in_place}.",
        "Hazy attenuation increases are missing {in_place}.",
    ),
    "Pulmonary fibrotic sequela": templates(
        "fibrotic-sequela/absent",
        "Sequelae changes ARE not SEEN {in_place}.",
        "There are no [fibrotic|pleuroparenchymal] bands {in_place}.",
        "No sequelae fibrotic change IS SEEN {in_place}.",
        "Scars are absent {in_place}.",
    ),
    "Pleural effusion": templates(
        "pleural-effusion/absent",
        "No [free |]fluid IS SEEN between the pleural leaves {on_side}.",
        "Effusion [is|was] not [observed|detected] in {hemithorax}.",
        "No pleural effusion or collection IS SEEN {on_side}.",
        "The costophrenic recess holds no fluid {on_side}.",
        "There is no effusion in {pleural_space}.",
        "No pleural effusion [was|is] [noted|found] in {hemithorax}.",
    ),
    "Mosaic attenuation pattern": templates(
        "mosaic-attenuation/absent",
        "The attenuation is homogeneous {in_place}, without a mosaic pattern.",
        "A mosaic pattern [is|was] not [observed|detected] {in_place}.",
        "No mosaic perfusion difference IS SEEN {in_place}.",
        "No patchwork of attenuation is visible {in_place}.",
    ),
    "Peribronchial thickening": templates(
        "peribronchial-thickening/absent",
        "The bronchial walls are not thickened {in_place}.",
        "Peribronchial thickness is not increased {in_place}.",
        "The bronchial wall thickness is normal {in_place}.",
        "Cuffing of the bronchi is absent {in_place}.",
    ),
    "Consolidation": templates(
        "consolidation/absent",
        "No pneumonic consolidation area IS SEEN {in_place}.",
        "Consolidation areas ARE not SEEN {in_place}.",
        "There is no consolidative [density|opacity] {in_place}.",
        "The air spaces are not consolidated {in_place}.",
        "No consolidation [suggesting|in favor of] pneumonia IS SEEN {in_place}.",
    ),
    "Bronchiectasis": templates(
        "bronchiectasis/absent",
        "Bronchial calibers are normal {in_place}, without bronchiectasis.",
        "Bronchiectatic changes ARE not SEEN {in_place}.",
        "The bronchi are not dilated {in_place}.",
        "The airways taper as they should {in_place}.",
    ),
    "Interlobular septal thickening": templates(
        "septal-thickening/absent",
        "The interlobular septa are not thickened {in_place}.",
        "Septal thickness increases ARE not SEEN {in_place}.",
        "The interlobular septa are of normal thickness {in_place}.",
        "Septal lines are absent {in_place}.",
    ),
}
