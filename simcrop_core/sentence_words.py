"""The words that the rules for sentences rest on, all in small letters (see ``sentences``)."""

from __future__ import annotations

# Never the end of a sentence.
ABBREVIATIONS = frozenset(
    "dr drs prof assist assoc asst doç uzm mr mrs ms mt sr e.g i.e eg ie vs cf viz approx incl "
    "esp resp z.b u.s".split()
)
# Not an end before a number ("Th. 12", "No. 4", "ca. 3 cm"); else an ordinary word.
BEFORE_NUMBER = frozenset(
    "th no nr nos fig figs im ima img se ser seg segm ca c max min vol diam pos p pp sl ct ex "
    "t l s d v d1 tab par ref art".split()
)
# Not an end before a small letter: units and words cut short in the middle of a sentence.
CUT_SHORT = frozenset(
    "mm cm m ml cc hu lab vert diff dens sag cor ax ant post sup inf lat med bilat prox dist "
    "corr w wt susp poss prob etc calc temp exam ext int art subseg max min".split()
)
# "lab. Correlation is recommended": one sentence in spite of the capital.
AFTER_LAB = ("correl", "verif", "value")
# Before "2. The ..." these say that the number is a label, not a list marker.
LABELLED = frozenset(
    "segment segments image images grade stage type level number no series case class group "
    "score category section slice rib vertebra in of and or to".split()
)
# A word in small letters that no new sentence begins with, after a full stop.
NEVER_FIRST = frozenset(
    "and or nor of is are was were has have had not which that than with correlation".split()
)
# After a semicolon these carry the clause on ("Pericardial effusion; is stable").
CARRIES_ON = NEVER_FIRST | frozenset(
    "be but could can may might will would should new newly stable more less most looks although "
    "because while unchanged similar likely probably possibly e.g i.e see compatible consistent "
    "suspicious".split()
)
# In small letters after a question mark these still begin a sentence ("edema? clinical ...").
BEGINS = frozenset("it there this these the no clinical correlation further".split())
# First words of the introductions that a semicolon or colon ends.
INTRODUCTIONS = frozenset(
    "when as in on within although compared while for regarding between at if upon".split()
)
# A line that ends so goes on in the next, whatever that begins with.
UNFINISHED = frozenset(
    "of the a an and or in on at by with to from for is are was were no not than as measuring "
    "approximately".split()
)
# "by J. Smith": before a single capital these speak for a name.
NAMES_FOLLOW = frozenset("by with from to and dr prof mr mrs ms drs".split())
