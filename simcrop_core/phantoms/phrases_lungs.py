"""Wordings for the findings of lungs and pleura: that they are there, and that they are not.

Slots are those of ``language_places`` and of the finding itself (size, severity, kind, ...); see
``language_grammar`` for the notation. The last of every four is held out from training.
"""

from __future__ import annotations

from simcrop_core.phantoms.language_grammar import Template, templates

PRESENT: dict[str, tuple[Template, ...]] = {
    "Lung nodule": templates(
        "lung-nodule/present",
        "a(n) [{kind} |]nodule [measuring|of] [approximately |]{size} IS SEEN "
        "{in_place}[{nearby}|].",
        "There is a(n) [{kind} |{margin} |]nodule {in_place}, [measuring {size}|with a diameter of "
        "{size}].",
        "{In_place}, a(n) [nonspecific |]nodule {size} in [diameter|size] IS "
        "SEEN[{hedge_nodule}|].",
        "A rounded [focus|density] of {size}, [consistent with|in keeping with] a(n) [parenchymal|"
        "pulmonary] nodule, lies {in_place}.",
        "a(n) {margin}[, {kind}|] nodule, {size} at its widest, is [present|visible] {in_place}.",
        "{In_place} there is a(n) [{kind} |]nodule, the [long axis|diameter] of which "
        "[measures|is] {size}.",
        "One [{kind} |]pulmonary nodule IS SEEN {in_place} ({size}[{hedge_in}|]).",
        "[Note is made of|Attention is drawn to] a nodular lesion {in_place} with a(n) [maximum|"
        "largest] diameter of {size}.",
        "a(n) {kind} nodule with [{margin}|visible] [borders|contours] IS SEEN {in_place} "
        "([diameter |]{size}).",
        "a(n) [{size} |]nodular density IS SEEN {in_place}[, and follow-up is recommended|].",
        "a(n) [{margin} |]nodule {in_place} [is measured as|measures] {size}[{hedge_nodule}|].",
        "The parenchyma contains a(n) [{kind} |]nodular opacity {in_place}, about {size} across.",
        "a(n) [{kind} |]nodule with a diameter [of|reaching] {size} IS SEEN {in_place}[{nearby}|].",
        "{In_place}, there is a nodular lesion [{size} in diameter|that measures {size}]"
        "[ with {margin} margins|].",
    ),
    "Lung mass": templates(
        "lung-mass/present",
        "a(n) [{margin} |]mass [measuring|of] [approximately |]{size} IS SEEN {in_place}"
        "[{hedge_mass}|].",
        "There is a(n) [{margin} |]mass lesion {in_place} with a(n) [maximum|largest] diameter of "
        "{size}[{nearby}|].",
        "{In_place}, a(n) [{margin} |]space-occupying lesion of {size} IS SEEN[{hedge_mass}|].",
        "The parenchyma {in_place} is replaced by a(n) {margin} tumor [{size} across|that measures "
        "{size}].",
        "a(n) [{kind} |]mass with {margin} [contours|borders] IS SEEN {in_place} ({size}).",
        "A large nodular lesion, {size} in its longest axis, is present {in_place}[{hedge_mass}|].",
        "A mass, [{margin} in outline|solid throughout], occupies {place} over {size}.",
        "[{Margin}|Bulky] tumorous tissue of {size} can be made out {in_place}.",
    ),
    "Lung nodules": templates(
        "lung-nodules/present",
        "{Count} [{kind} |]nodules ARE SEEN {in_place}, the largest [measuring|of which measures] "
        "{size}.",
        "There are {count} [{kind} |nonspecific |]nodules {in_place}, the [largest|biggest] {size} "
        "in diameter.",
        "{In_place}, {count} [parenchymal|pulmonary] nodules with diameters up to {size} ARE SEEN.",
        "{Count} rounded densities [consistent with|in keeping with] nodules lie {in_place}, up to "
        "{size} across.",
        "{Count} nodular lesions ARE SEEN {in_place}, the largest one being {size}.",
        "Nodules [{count} in number |]are [present|visible] {in_place}, reaching {size} in "
        "[diameter|size].",
        "{In_place} there are {count} [{kind} |]pulmonary nodules[{hedge_nodule}|].",
        "[Note is made of|Attention is drawn to] {count} nodular opacities {in_place} with a "
        "largest diameter of {size}.",
        "The parenchyma {in_place} shows {count} [nonspecific |{kind} |]nodules.",
        "{Count} nodules [not exceeding|no larger than] {size} [are noted|were found] {in_place}.",
        "[Multiple|Scattered] nodules are [noted|found] {in_place}, the dominant one with a "
        "diameter of {size}.",
        "More than one [pulmonary |]nodule can be [distinguished|made out] {in_place} (up to "
        "{size}).",
        "There are nodular [lesions|densities] {in_place}, {count} in all, the largest being "
        "{size}.",
    ),
    "Lung opacity": templates(
        "lung-opacity/present",
        "[{Severity} |][{pattern} |]ground-glass [density increases|densities] ARE SEEN "
        "{in_place}[{hedge_infection}|].",
        "There is a(n) [{severity} |]{pattern} area of ground-glass opacity {in_place}.",
        "{In_place}, [{pattern} |]ground glass [areas|opacities] [of {severity} extent |]ARE SEEN.",
        "Hazy [{pattern} |]increased attenuation that does not obscure the vessels is present "
        "{in_place}.",
        "[{Severity} |]areas of [{pattern} |]ground glass attenuation [were noted|are noted] "
        "{in_place}[{hedge_in_brackets}|].",
        "A(n) {pattern} ground-glass opacity [approximately {size} in size |]IS SEEN {in_place}.",
        "Opacities of ground glass [density|attenuation] [extend through|are visible in] {place}"
        "[, evaluated primarily in favor of an infectious process|].",
        "The attenuation of {place} is [raised|increased] in a(n) [{pattern} |]ground-glass "
        "manner.",
        "[{Pattern} |]density increases in the form of ground glass ARE SEEN {in_place}.",
        "The lung parenchyma shows [{severity} |]ground-glass opacity {in_place}[{hedge_infection}"
        "|].",
        "[{Severity} |]parenchymal opacity of ground-glass type IS SEEN {in_place}.",
        "A veil-like [{severity} |]opacity, through which the vessels can still be followed, "
        "involves {place}.",
        "In the evaluation of the parenchyma, [{pattern} |]ground-glass appearances ARE SEEN "
        "{in_place}.",
    ),
    "Consolidation": templates(
        "consolidation/present",
        "a(n) [{severity} |]area of consolidation[ {bronchogram}|] IS SEEN {in_place}"
        "[{hedge_infection}|].",
        "There is [{pattern} |]consolidation[ {bronchogram}|] {in_place}, [which may be compatible "
        "with pneumonia|evaluated in favor of pneumonic infiltration].",
        "{In_place}, [{severity} |]consolidation of the parenchyma[ {bronchogram}|] IS SEEN.",
        "The air spaces of {place} are [filled|opacified][ {bronchogram}|], [in keeping with|"
        "consistent with] consolidation.",
        "[{Pattern} |]consolidative [density|opacity] IS SEEN {in_place}[ and should be evaluated "
        "together with the clinical findings|].",
        "[{Severity} |]consolidation involving {place} [was noted|is noted][{hedge_infection}|].",
        "A consolidation [approximately {size} in extent |]IS SEEN {in_place}[ {bronchogram}|].",
        "Airspace disease with [loss of the vessel markings|obscured vessels] is present "
        "{in_place}[ {bronchogram}|].",
        "[Pneumonic|Consolidative] infiltration[ {bronchogram}|] IS SEEN {in_place}.",
        "Part of the parenchyma {in_place} is consolidated[ {bronchogram}|][{hedge_infection}|].",
        "[{Severity} |]parenchymal consolidation, [{size} at its widest|without cavitation], IS "
        "SEEN {in_place}.",
        "Dense [{pattern} |]airspace opacity that hides the vessels is [visible|found] {in_place}.",
        "There [is|was] a consolidation area {in_place}[ {bronchogram}|], and [clinical|laboratory]"
        " correlation is recommended.",
    ),
    "Atelectasis": templates(
        "atelectasis/present",
        "[{Severity} |]{kind} atelectasis [is|was] [noted|identified|visible] {in_place}.",
        "There [is|was] evidence of [{severity} |]{kind} atelectasis {in_place}.",
        "{In_place}, [{severity} |]{kind} atelectatic changes ARE SEEN.",
        "[{Severity} |]collapse of lung tissue, of the {kind} type, is present {in_place}.",
        "[{Severity} |]atelectatic [changes|densities] [of {kind} form |]ARE SEEN {in_place}.",
        "a(n) area of {kind} atelectasis [is noted|was noted] {in_place}.",
        "The parenchyma {in_place} [contains|shows] {kind} atelectasis[ of {severity} degree|].",
        "Airless lung of {kind} configuration [lies|is visible] {in_place}.",
        "A density compatible with {kind} atelectasis IS SEEN {in_place}.",
        "[{Severity} |]volume loss due to {kind} atelectasis is [noted|present] {in_place}.",
        "{Kind} atelectasis [of {severity} extent |]can be [made out|distinguished] {in_place}.",
        "Reduced aeration with {kind} collapse [is found|was found] {in_place}.",
        "Atelectasis IS SEEN {in_place}, of {kind} type.",
    ),
    "Emphysema": templates(
        "emphysema/present",
        "[{Severity} |]{kind} emphysema IS SEEN {in_place}.",
        "There [is|was] [{severity} |]{kind} emphysema {in_place}.",
        "{In_place}, [{severity} |]{kind} emphysematous [changes|areas] ARE SEEN.",
        "Destruction of lung tissue with [{kind} |]areas of low attenuation is present {in_place}.",
        "[{Severity} |]emphysematous aeration increases[ of {kind} type|] ARE SEEN {in_place}.",
        "The parenchyma {in_place} shows [{severity} |]emphysema[ ({kind})|].",
        "Changes [consistent with|compatible with] [{severity} |]{kind} emphysema ARE SEEN "
        "{in_place}.",
        "Lucent areas without walls, [typical of|in keeping with] [{kind} |]emphysema, are "
        "scattered in {place}.",
        "Areas of [{kind} |]emphysema[, {severity} in degree,|] [are noted|were noted] {in_place}.",
        "[{Severity} |]emphysema, {kind} in type, [affects|involves] {place}.",
        "Findings of [{severity} |]{kind} emphysema [are present|were found] {in_place}.",
        "Abnormal [{severity} |]enlargement of the air spaces (emphysema) is visible {in_place}.",
        "[{Severity} |]increased radiolucency due to [{kind} |]emphysema IS SEEN {in_place}.",
    ),
    "Bullae": templates(
        "bullae/present",
        "Emphysema with [air cysts|bullae] up to {size} in [diameter|size] IS SEEN {in_place}.",
        "There is bullous emphysema {in_place}[, with air spaces of up to {size}|].",
        "{In_place}, [{severity} |]emphysema with bulla formation [reaching {size} |]IS SEEN.",
        "Thin-walled air spaces, up to {size} across, have replaced lung tissue {in_place}, as in "
        "bullous emphysema.",
        "[{Severity} |]bullous emphysematous changes ARE SEEN {in_place}[ (up to {size})|].",
        "Emphysema of the bullous type[, with a largest bulla of {size},|] [affects|involves] "
        "{place}.",
        "Bullous [changes|areas] [measuring up to {size} |]ARE SEEN {in_place}, in keeping with "
        "emphysema.",
        "Bulla formation of [{severity} degree|up to {size}] is visible {in_place}.",
    ),
    "Pulmonary fibrotic sequela": templates(
        "fibrotic-sequela/present",
        "[{Severity} |]{kind} sequelae [changes|densities] ARE SEEN {in_place}.",
        "There [is|are] [{severity} |]fibrotic [sequela|changes] with {kind} density {in_place}.",
        "{In_place}, [{severity} |]{kind} density increases of [sequelae|fibrotic] nature ARE "
        "SEEN.",
        "[{Severity} |]{kind} scarring [from an earlier process |]is present {in_place}.",
        "{Kind} fibrotic [recessions|bands] [of {severity} extent |]ARE SEEN {in_place}.",
        "Sequelae of [earlier|previous] disease with {kind} densities [are noted|were noted] "
        "{in_place}.",
        "[{Severity} |]{kind} fibrosis, [evaluated as|considered] sequela, IS SEEN {in_place}.",
        "Old [{severity} |]scars of {kind} appearance can be [made out|distinguished] {in_place}.",
        "Density increases [evaluated in favor of|compatible with] {kind} sequela ARE SEEN "
        "{in_place}.",
        "The parenchyma {in_place} shows [{severity} |]{kind} sequelae.",
        "[{Severity} |]fibrotic density increases[ of {kind} type|] ARE SEEN {in_place}.",
        "Healed disease shows as [{severity} |]{kind} strands {in_place}.",
        "Fibrotic sequela of {kind} form IS SEEN {in_place}[, without an active component|].",
    ),
    "Pleural effusion": templates(
        "pleural-effusion/present",
        "There is [a(n) {severity}|a(n) {kind}|a] {side} pleural effusion[, measuring {size} at "
        "its "
        "thickest point|].",
        "[{Severity} |]pleural effusion [is|was] [noted|identified|visible] {on_side}"
        "[, reaching a thickness of {size}|].",
        "[{Severity} |][{kind} |]effusion [with a thickness of {size} |]IS SEEN in {hemithorax}.",
        "a(n) [{kind} |]layer of fluid[, {size} thick,|] occupies {pleural_space}.",
        "In {pleural_space}, [{severity} |]effusion [measured as {size} |]IS SEEN.",
        "[{Severity} |]fluid collects between the pleural leaves {on_side}[ ({size})|].",
        "{Side} pleural effusion[ of {severity} degree|] [is noted|was noted][, {size} in depth|].",
        "The costophrenic recess is [filled|occupied] by [{severity} |]fluid {on_side}[, up to "
        "{size} deep|].",
        "Between the leaves of the pleura, an effusion [reaching {size} |]IS SEEN {on_side}.",
        "a(n) [{severity} |]effusion [up to {size} in thickness |]is present in {pleural_space}.",
        "{Hemithorax} shows [{severity} |]pleural fluid[, {size} at the widest|].",
        "Hydrothorax[ of {severity} extent|] is visible {on_side}[, with {size} of fluid|].",
        "Pleural fluid [of {severity} amount |]IS SEEN {on_side}[, {size} in its deepest part|].",
    ),
    "Pleural effusions": templates(
        "pleural-effusions/present",
        "There is bilateral pleural effusion, measuring {size_right} on the right and {size_left} "
        "on the left.",
        "Bilateral effusion IS SEEN between the pleural leaves ([right|on the right] {size_right}, "
        "[left|on the left] {size_left}).",
        "Both pleural spaces contain [free |]fluid, {size_left} thick on the left and {size_right} "
        "on the right.",
        "Fluid has collected in both hemithoraces, with a depth of {size_right} on the right side "
        "and {size_left} on the left side.",
        "Pleural effusion reaching {size_right} on the right and {size_left} on the left IS SEEN.",
        "In both hemithoraces, pleural effusion IS SEEN, [with a thickness of up to|"
        "reaching] {size_max}.",
        "Bilateral pleural fluid is [noted|present], [at its thickest|at most] {size_max}.",
        "Pleural fluid is found on both sides, {size_right} right and {size_left} left.",
    ),
    "Mosaic attenuation pattern": templates(
        "mosaic-attenuation/present",
        "[{Severity} |]mosaic attenuation is [visible|evident|identified] "
        "{in_place}[{hedge_mosaic}|].",
        "There [is|was] a(n) [{severity} |]mosaic pattern of attenuation "
        "{in_place}[{hedge_mosaic}|].",
        "{Place} {has} a(n) [{severity} |]mosaic pattern[ in attenuation|][{hedge_mosaic}|].",
        "Patchwork of darker and brighter lung with sharp borders is present {in_place}.",
        "The attenuation of {place} is [heterogeneous|inhomogeneous] in a(n) [{severity} |]mosaic "
        "manner.",
        "In the lung parenchyma, a(n) [{severity} |]mosaic perfusion pattern IS SEEN {in_place}.",
        "Aeration of {place} is uneven, [forming|with] a mosaic attenuation pattern"
        "[{hedge_mosaic}|].",
        "Lobules of low attenuation alternate with normal ones {in_place}, [giving|as in] a mosaic "
        "appearance.",
        "[{Severity} |]mosaic density differences [are noted|were noted] {in_place}[{hedge_mosaic}"
        "|].",
        "A(n) [{severity} |]pattern of mosaic attenuation [involves|affects] {place}.",
        "The parenchyma {in_place} shows [{severity} |]mosaic attenuation.",
        "Geographic areas of reduced density, as in mosaic attenuation, can be made out "
        "{in_place}.",
        "Mosaic-like [{severity} |]attenuation differences ARE SEEN {in_place}.",
    ),
    "Peribronchial thickening": templates(
        "peribronchial-thickening/present",
        "[{Severity} |]peribronchial thickening IS SEEN {in_place}.",
        "There [is|was] [{severity} |]thickening of the bronchial walls {in_place}.",
        "{In_place}, the bronchial walls are [{severity_ly} |]thickened.",
        "Cuffing of the airways[ of {severity} degree|] is present {in_place}.",
        "[{Severity} |]increase in peribronchial thickness IS SEEN {in_place}.",
        "[{Severity} |]bronchial wall thickness increases ARE SEEN {in_place}.",
        "The walls of the segmental bronchi [are|appear] [{severity_ly} |]thick {in_place}.",
        "The airways {in_place} have [{severity_ly} |]thickened walls, [as in bronchitis|in "
        "keeping with airway inflammation].",
        "[{Severity} |]peribronchial wall thickening is noted {in_place}[{hedge_airways}|].",
        "Bronchial wall thickening [of {severity} degree |]IS SEEN {in_place}.",
        "[{Severity} |]peribronchial sheath thickening is [noted|visible] {in_place}.",
        "Around the bronchi {in_place}, [{severity} |]soft tissue cuffs can be made out.",
        "Peribronchial thickness [has increased|is increased] [{severity_ly} |]{in_place}.",
    ),
    "Bronchiectasis": templates(
        "bronchiectasis/present",
        "[{Severity} |]{kind} bronchiectasis IS SEEN {in_place}.",
        "There [is|was] [{severity} |]{kind} bronchiectasis {in_place}.",
        "{In_place}, [{severity} |]{kind} bronchiectatic changes ARE SEEN.",
        "The bronchi {in_place} are wider than the accompanying arteries[, of {kind} shape|].",
        "[{Severity} |]{kind} widening of the bronchi (bronchiectasis) IS SEEN {in_place}.",
        "Bronchial diameters are [{severity_ly} |]increased {in_place}, [compatible with|"
        "consistent with] {kind} bronchiectasis.",
        "Bronchiectasis[ of {severity} degree and|, ] {kind} in type, [is noted|was noted] "
        "{in_place}.",
        "[{Severity} |]dilatation of airways that fail to taper is present {in_place}.",
        "Dilated bronchi ({kind} bronchiectasis) ARE SEEN {in_place}.",
        "[{Severity} |]{kind} bronchial dilatation [is noted|was found] {in_place}.",
        "{Kind} bronchiectasis[, {severity} in degree,|] [affects|involves] {place}.",
        "Ectatic bronchi of {kind} configuration can be followed {in_place}.",
        "[{Severity} |]ectasia of the bronchi, {kind} in type, IS SEEN {in_place}.",
    ),
    "Interlobular septal thickening": templates(
        "septal-thickening/present",
        "[{Severity} |][{kind} |]interlobular septal thickening IS SEEN {in_place}.",
        "There [is|was] [{severity} |][{kind} |]thickening of the interlobular septa {in_place}.",
        "{In_place}, the interlobular septa are [{severity_ly} |]thickened[{hedge_septa}|].",
        "Septal lines [of {severity} degree |]outline the secondary lobules {in_place}.",
        "[{Severity} |][{kind} |]interlobular septal thickness increases ARE SEEN {in_place}"
        "[{hedge_septa}|].",
        "The septa between the lobules [appear|are] [{severity_ly} |]thick {in_place}.",
        "[{Kind} |]septal thickening[, {severity} in degree,|] [is noted|was noted] {in_place}.",
        "A network of [{severity_ly} |]prominent septa is visible {in_place}[{hedge_septa}|].",
        "[{Severity} |]thickening of interlobular and interstitial septa IS SEEN {in_place}.",
        "The parenchyma {in_place} shows [{severity} |][{kind} |]interlobular septal thickening.",
        "Thickened [{kind} |]interlobular septa ARE SEEN {in_place}[{hedge_septa}|].",
        "Fine lines reaching the pleura, in keeping with thick septa, can be made out {in_place}.",
        "Interlobular septal thickening [of {severity} extent |][involves|affects] {place}.",
    ),
}
