"""Our own objective: sentences learn where to point, and whether they are true.

L = w_i L_image + w_g L_region + w_c L_cell + w_x L_contrast + w_p L_presence + w_s L_segmentation
+ w_a L_align, each part a switch. Regions come with phantoms and with data sets whose findings are
outlined. Which statements are false of which study is decided by meaning (finding, side, level,
presence), never by how near their vectors are. Losses are pure functions in
``grounded_losses.py`` and ``grounded_segmentation.py``.

Shapes in names: B studies on this process; G studies on all processes; S sentences and C
counterfactuals of a study, padded; M statements of a study (S + C); T all G M statements; N
patches; K visible patches; E the width of a patch's evidence; D that of the text encoder's vectors.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from simcrop_core.errors import SimCroPError
from simcrop_core.model.pyramid_segmentation import PyramidSegmentation
from simcrop_core.model.simcrop import SimCroP
from simcrop_core.model.vision import VisionFeatures, gather_tokens, patchify
from simcrop_core.objectives.base import LossTerms, Objective, Ranks
from simcrop_core.objectives.grounded_config import GroundedConfig
from simcrop_core.objectives.grounded_losses import (
    facts_of,
    presence_sums,
    region_sums,
    sentence_contrast_sums,
    truth_of,
    volume_contrast_sums,
)
from simcrop_core.objectives.grounded_segmentation import draw_cells, segmentation_loss
from simcrop_core.objectives.grounded_statements import (
    Scored,
    Statements,
    hidden_sentences,
    padded_alike,
    score_statements,
    turns_on_hidden,
    visible,
)
from simcrop_core.objectives.losses import full_precision, similarity_alignment_sums
from simcrop_core.objectives.reconstruction import reconstruction_loss, see_visible
from simcrop_core.objectives.requirements import (
    JOINT_SPACE,
    VISION_TRUNK,
    require_maskable,
    require_parts,
)
from simcrop_core.statements import UNKNOWN
from simcrop_core.study import KINDS
from simcrop_core.study_batch import StudyBatch

MIN_TEMPERATURE = 0.01


class GroundedObjective(Objective):
    """Regions, contrast by meaning, presence; with masked patches and, if asked, SimCroP's own.

    Terms: ``image``, ``region`` with ``pointing`` (share of sentences with a visible region whose
    most similar visible patch touches it), ``cell``, ``contrast``, ``presence`` with
    ``presence_accuracy``, ``segmentation`` with ``dice``, ``align``; and the temperatures. A model
    with ``text_centred`` has its mean sentence vector already (:meth:`SimCroP.set_text_mean`);
    :func:`simcrop_core.train.train` sets that of the training data.
    """

    def __init__(self, config: GroundedConfig, model: SimCroP) -> None:
        super().__init__()
        self.config = config
        if config.image_weight:
            require_parts(model, config.kind, "image_decoder")
        if config.mask_ratio:
            require_maskable(model, config.kind, config)
        if config.scores_statements and model.presence_head is None:
            raise _lacks(model, "pools similarities into presence", "presence")
        if config.cell_weight and model.config.vision.cells is None:
            raise _lacks(model, "has cells finer than patches", "vision.cells")
        if config.segmentation_weight and not _cuts_cells(model):
            raise _lacks(
                model, "cuts the cells of a pyramid into classes", "segmentation_labels", "pyramid"
            )
        start = math.log(config.temperature)
        self.log_region_temperature = (
            nn.Parameter(torch.tensor(start)) if config.uses_regions else None
        )
        self.log_contrast_temperature = (
            nn.Parameter(torch.tensor(start)) if config.contrast_weight else None
        )

    def trains(self, name: str) -> bool:
        config = self.config
        answers = config.uses_regions or config.scores_statements
        if name.startswith("image_decoder."):
            return config.image_weight > 0
        if name == "presence_head.log_sharpness":
            return config.scores_statements
        if name.startswith("presence_head."):
            return config.presence_weight > 0
        if name.startswith("segmentation."):
            return config.segmentation_weight > 0
        if name.startswith(("vision.cell_head.context", "vision.cell_head.block.")):
            return answers or config.segmentation_weight > 0
        if name.startswith(("vision.cell_head.", "cell_projection.")):
            return answers
        return name.startswith((*VISION_TRUNK, *JOINT_SPACE))

    def forward(self, model: SimCroP, batch: StudyBatch, ranks: Ranks) -> LossTerms:
        config = self.config
        if config.mask_ratio:
            mask, seen = see_visible(config, model, batch)
            keep_BK = mask.keep_BK
        else:
            mask, seen = None, model.vision(batch.volume_B1HWD)
            keep_BK = torch.arange(seen.patches_BND.shape[1], device=model.device)
            keep_BK = keep_BK.expand(len(batch), -1)
        terms: dict[str, Tensor] = {}
        if mask is not None and config.image_weight:
            terms["image"] = reconstruction_loss(config, model, batch, mask, seen, ranks)
        if config.segmentation_weight:
            terms |= self._segmentation(model, batch, seen, ranks)
        with full_precision(batch.volume_B1HWD):
            if config.uses_regions:
                terms |= self._regions(model, batch, seen, keep_BK, ranks)
            if config.scores_statements:
                terms |= self._statements(model, batch, seen, keep_BK, ranks)
            if config.align_weight:
                terms["align"] = self._alignment(model, batch, seen, ranks)
        weights = {
            "image": config.image_weight,
            "region": config.region_weight,
            "cell": config.cell_weight,
            "contrast": config.contrast_weight,
            "presence": config.presence_weight,
            "segmentation": config.segmentation_weight,
            "align": config.align_weight,
        }
        parts = [weight * terms[name] for name, weight in weights.items() if weight]
        return LossTerms(torch.stack(parts).sum(), terms)

    # -- regions --------------------------------------------------------------------------------

    def _regions(
        self,
        model: SimCroP,
        batch: StudyBatch,
        seen: VisionFeatures,
        keep_BK: Tensor,
        ranks: Ranks,
    ) -> dict[str, Tensor]:
        config = self.config
        assert self.log_region_temperature is not None
        temperature = bounded(self.log_region_temperature)
        kinds = [KINDS.index(kind) for kind in config.regions_of]
        of_kind_BS = torch.isin(batch.kind_BS, torch.tensor(kinds, device=model.device))
        wanted_BS = batch.region_mask_BS & batch.sentence_mask_BS & of_kind_BS
        evidence_BKE, sentences_BSD = seen.evidence_BNE, batch.sentences_BSD
        region_BSK = visible(batch.region_BSN, keep_BK)
        similarity_BSK = model.similarity(evidence_BKE, sentences_BSD)
        there_BS = wanted_BS & (region_BSK > 0).any(dim=-1)
        best_BS1 = similarity_BSK.detach().argmax(dim=-1, keepdim=True)
        hit_BS = (region_BSK.gather(-1, best_BS1)[..., 0] > 0) & there_BS
        terms = {
            "pointing": ranks.mean(hit_BS.sum().float(), there_BS.sum()),
            "region_temperature": temperature.detach(),
        }
        if config.region_weight:
            total, count = region_sums(
                similarity_BSK, region_BSK, wanted_BS, temperature, config.region_floor
            )
            terms["region"] = ranks.mean(total, count)
        if config.cell_weight:
            own_BSK, cells_BSKC = model.similarity_levels(evidence_BKE, sentences_BSD)
            assert cells_BSKC is not None
            if batch.region_cells_BSNC is None:
                raise SimCroPError(
                    "The objective grounded is to learn from regions on cells, and the batch has "
                    "regions on patches only",
                    code="no-region-cells",
                    remedy="Set cell_weight to 0, or let the loader give regions on cells.",
                )
            region_BSKC = visible(batch.region_cells_BSNC.flatten(3), keep_BK)
            both_BSKC = (own_BSK[..., None] + cells_BSKC) / 2
            total, count = region_sums(
                both_BSKC.flatten(2), region_BSKC.flatten(2), wanted_BS, temperature,
                config.region_floor,
            )  # fmt: skip
            terms["cell"] = ranks.mean(total, count)
        return terms

    # -- contrast and presence ------------------------------------------------------------------

    def _statements(
        self,
        model: SimCroP,
        batch: StudyBatch,
        seen: VisionFeatures,
        keep_BK: Tensor,
        ranks: Ranks,
    ) -> dict[str, Tensor]:
        """Pool every statement over every volume, and compare with what is true."""
        batch = padded_alike(batch, ranks)
        hidden_BS = hidden_sentences(batch, visible(batch.region_BSN, keep_BK))
        all_ = Statements.of_all(
            batch, hidden_BS, ranks, counterfactuals=self.config.counterfactuals
        )
        B, M = len(batch), all_.mask_GM.shape[1]
        first = ranks.rank * B
        meaning_T4, mask_T = all_.meaning_GM4.flatten(0, 1), all_.mask_GM.flatten()
        facts_BFSL = all_.facts_GFSL[first : first + B]
        own_BM = torch.arange(first * M, (first + B) * M, device=model.device).view(B, M)
        truth_BT = truth_of(meaning_T4, facts_BFSL)
        # A sentence whose finding is hidden says nothing of its own volume, and what others say
        # of a finding that is hidden throughout says as little.
        wanted_BT = mask_T.expand(B, -1).scatter(
            1, own_BM, (all_.mask_GM & all_.seen_GM)[first : first + B]
        )
        wanted_BT = wanted_BT & ~turns_on_hidden(batch, hidden_BS, meaning_T4, truth_BT)
        scored = Scored(
            scores_BT=score_statements(model, seen.evidence_BNE, all_.vectors_GMD.flatten(0, 1)),
            truth_BT=truth_BT,
            wanted_BT=wanted_BT,
            own_BM=own_BM,
        )
        terms: dict[str, Tensor] = {}
        if self.config.presence_weight:
            fact_BT = facts_of(meaning_T4, facts_BFSL)
            terms |= self._presence(model, scored, fact_BT, ranks)
        if self.config.contrast_weight:
            sentences = batch.sentence_mask_BS.shape[1]
            terms |= self._contrast(model, scored, all_, sentences, ranks)
        return terms

    def _presence(
        self, model: SimCroP, scored: Scored, fact_BT: Tensor, ranks: Ranks
    ) -> dict[str, Tensor]:
        head = model.presence_head
        assert head is not None
        target_BT = fact_BT if head.config.of == "finding" else scored.truth_BT
        logits_BT = head.logits(scored.scores_BT)
        total, count = presence_sums(logits_BT, target_BT, scored.wanted_BT)
        right_BT = ((logits_BT > 0) == (target_BT == 1)) & scored.wanted_BT
        right = (right_BT & (target_BT != UNKNOWN)).sum().float()
        return {
            "presence": ranks.mean(total, count),
            "presence_accuracy": ranks.mean(right, count),
        }

    def _contrast(
        self, model: SimCroP, scored: Scored, all_: Statements, sentences: int, ranks: Ranks
    ) -> dict[str, Tensor]:
        """The mean of both directions; anchors are each volume's own true sentences."""
        assert model.presence_head is not None
        assert self.log_contrast_temperature is not None
        meaning_T4, M = all_.meaning_GM4.flatten(0, 1), all_.mask_GM.shape[1]
        temperature = bounded(self.log_contrast_temperature)
        logits_BT = scored.scores_BT / temperature
        if model.presence_head.config.of == "finding":
            # What makes a negative statement true is a low score of the finding it names.
            logits_BT = torch.where(meaning_T4[:, 3] == 1, logits_BT, -logits_BT)
        own_BS = scored.own_BM[:, :sentences]
        anchor_BS = (scored.wanted_BT & (scored.truth_BT == 1)).gather(1, own_BS)
        false_BT = scored.wanted_BT & (scored.truth_BT == 0)
        by_volume = volume_contrast_sums(logits_BT, false_BT, own_BS, anchor_BS)
        own_R = own_BS.flatten()
        by_sentence = sentence_contrast_sums(
            ranks.gather(logits_BT)[:, own_R],
            own_R // M,
            truth_of(meaning_T4[own_R], all_.facts_GFSL),
            anchor_BS.flatten(),
        )
        return {
            "contrast": (ranks.mean(*by_volume) + ranks.mean(*by_sentence)) / 2,
            "contrast_temperature": temperature.detach(),
        }

    def _segmentation(
        self, model: SimCroP, batch: StudyBatch, seen: VisionFeatures, ranks: Ranks
    ) -> dict[str, Tensor]:
        head = model.segmentation
        assert isinstance(head, PyramidSegmentation)
        if batch.structures_BHWD is None:
            raise SimCroPError(
                "The objective grounded is to learn segmentation, and the batch has no label maps",
                code="no-label-maps",
                remedy="Set segmentation_weight to 0, or prepare studies with label maps.",
            )
        classes_BMP = patchify(batch.structures_BHWD[:, None], head.cell_shape)
        index_BR, weight_BR = draw_cells(
            classes_BMP, batch.seeds_B, self.config.segmentation_cells, head.classes
        )
        fine_BRC = gather_tokens(head.fine(seen).flatten(1, 3), index_BR)
        voxels_BRP = gather_tokens(patchify(batch.volume_B1HWD, head.cell_shape), index_BR)
        logits_BRPC = head.logits(fine_BRC, voxels_BRP).float()
        with full_precision(batch.volume_B1HWD):
            loss, dice = segmentation_loss(
                logits_BRPC.flatten(0, 1),
                gather_tokens(classes_BMP, index_BR).flatten(0, 1).long(),
                weight_BR.flatten(),
            )
        studies = torch.tensor(float(len(batch)), device=loss.device)
        return {
            "segmentation": ranks.mean(loss * studies, studies),
            "dice": ranks.mean(dice * studies, studies),
        }

    def _alignment(
        self, model: SimCroP, batch: StudyBatch, seen: VisionFeatures, ranks: Ranks
    ) -> Tensor:
        """SimCroP's own alignment (Eq. 2-4) on the patches' level."""
        total, reports = similarity_alignment_sums(
            model.joint_patches(seen.patches_BND.float()),
            model.joint_sentences(batch.sentences_BSD.float()),
            batch.sentence_mask_BS,
            top_k=self.config.top_k,
            temperature=self.config.temperature,
            normalize=model.config.similarity == "cosine",
        )
        return ranks.mean(total, reports)


def bounded(log_temperature: Tensor) -> Tensor:
    """A learned temperature, never below 0.01."""
    return log_temperature.float().clamp(min=math.log(MIN_TEMPERATURE)).exp()


def _cuts_cells(model: SimCroP) -> bool:
    head = model.config.segmentation
    return head is not None and head.kind == "pyramid"


def _lacks(model: SimCroP, what: str, field: str, preset: str = "grounded") -> SimCroPError:
    return SimCroPError(
        f"The objective grounded needs a model that {what}, and the model "
        f"{model.config.name!r} does not",
        code="model-lacks-part",
        remedy=f"Set the model's {field}, and choose the preset {preset}.",
    )
