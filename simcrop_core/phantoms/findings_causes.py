"""Causes that bring findings together, and how likely they are."""

from __future__ import annotations

#: Share of phantoms that are healthy.
HEALTHY = 0.09

# Probability that a cause brings a finding. "chance" stands for all that has no cause here.
CAUSES: dict[str, dict[str, float]] = {
    "chance": {
        "Medical material": 0.05,
        "Arterial wall calcification": 0.02,
        "Cardiomegaly": 0.04,
        "Pericardial effusion": 0.08,
        "Coronary artery wall calcification": 0.01,
        "Hiatal hernia": 0.11,
        "Lymphadenopathy": 0.08,
        "Emphysema": 0.03,
        "Atelectasis": 0.11,
        "Lung nodule": 0.19,
        "Lung opacity": 0.07,
        "Pulmonary fibrotic sequela": 0.11,
        "Pleural effusion": 0.04,
        "Mosaic attenuation pattern": 0.06,
        "Peribronchial thickening": 0.03,
        "Consolidation": 0.05,
        "Bronchiectasis": 0.05,
        "Interlobular septal thickening": 0.04,
    },
    "heart failure": {
        "Medical material": 0.25,
        "Cardiomegaly": 0.75,
        "Pericardial effusion": 0.3,
        "Atelectasis": 0.2,
        "Lung opacity": 0.3,
        "Pleural effusion": 0.6,
        "Mosaic attenuation pattern": 0.2,
        "Peribronchial thickening": 0.15,
        "Interlobular septal thickening": 0.55,
    },
    "infection": {
        "Lymphadenopathy": 0.25,
        "Atelectasis": 0.15,
        "Lung opacity": 0.6,
        "Pleural effusion": 0.2,
        "Peribronchial thickening": 0.2,
        "Consolidation": 0.55,
    },
    "tobacco": {
        "Coronary artery wall calcification": 0.15,
        "Arterial wall calcification": 0.15,
        "Emphysema": 0.65,
        "Lung nodule": 0.15,
        "Mosaic attenuation pattern": 0.12,
        "Peribronchial thickening": 0.3,
        "Bronchiectasis": 0.12,
    },
    "airway disease": {
        "Lung nodule": 0.1,
        "Mosaic attenuation pattern": 0.45,
        "Peribronchial thickening": 0.5,
        "Bronchiectasis": 0.55,
        "Atelectasis": 0.1,
    },
    "tumour": {
        "Medical material": 0.3,
        "Pericardial effusion": 0.1,
        "Lymphadenopathy": 0.6,
        "Atelectasis": 0.25,
        "Lung nodule": 0.8,
        "Pleural effusion": 0.3,
        "Interlobular septal thickening": 0.15,
    },
    "scars": {
        "Atelectasis": 0.1,
        "Lung nodule": 0.1,
        "Pulmonary fibrotic sequela": 0.75,
        "Bronchiectasis": 0.2,
        "Interlobular septal thickening": 0.2,
    },
    "intensive care": {
        "Medical material": 0.95,
        "Atelectasis": 0.4,
        "Consolidation": 0.3,
        "Pleural effusion": 0.4,
    },
    "old arteries": {
        "Medical material": 0.12,
        "Arterial wall calcification": 0.85,
        "Coronary artery wall calcification": 0.7,
        "Cardiomegaly": 0.08,
        "Hiatal hernia": 0.12,
    },
}
# How likely each cause is in the ill, at 20 and at 90 years.
CAUSE_CHANCE: dict[str, tuple[float, float]] = {
    "chance": (1.0, 1.0),
    "heart failure": (0.03, 0.26),
    "infection": (0.24, 0.24),
    "tobacco": (0.12, 0.34),
    "airway disease": (0.14, 0.16),
    "tumour": (0.08, 0.22),
    "scars": (0.08, 0.3),
    "intensive care": (0.06, 0.1),
    "old arteries": (0.0, 0.8),
}
