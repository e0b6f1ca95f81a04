"""The words and the rules of the bundled plays (`dqnlm.data.text.bundled`). All of it was written for this program.

Words stand in groups by their number of syllables. A verb is regular, or written base/past/participle; `~2` after a
form gives its syllables where they differ from the base's. In `RULES` a word with a rule or a word group of its name
(always capitals) is replaced; every other word stands for itself, with one syllable unless `~` says otherwise. An
alternative that begins with a number counts that many times.
"""

from __future__ import annotations

NOUNS = {
    1: "crown sword lamp bridge gate tower~2 ship sail oar rope king queen duke knight child son "
    "bride ghost thief judge "
    "priest clerk cook smith nurse page fool heart hand eye tongue face brow voice name oath vow song bell drum horn "
    "flute door wall road field hill stone stream shore tide wave star moon cloud storm wind flame torch hearth wolf "
    "hound horse crow lark swan snake bee fox stag thorn rose oak leaf root seed vine grape cup knife ring chain key "
    "coin purse cloak glove boot bed grave tomb dream word tale book wound scar blow law debt gift "
    "feast fast game jest plot trap siege truce flag nest well cage mask",
    2: "river harbour mountain garden orchard meadow forest island castle palace chamber window candle mirror letter "
    "answer question promise secret stranger neighbour brother sister father mother daughter cousin servant master "
    "captain sailor soldier miller weaver tailor baker beggar widow shepherd ferry lantern anchor feather arrow hammer "
    "needle ribbon barrel saddle winter summer morning evening hour~1 moment season shadow thunder silence sorrow "
    "pleasure fortune danger battle quarrel pardon blessing burden bargain treasure kingdom city village market "
    "kitchen cradle sparrow raven falcon spider",
    3: "messenger enemy companion gardener fisherman ferryman lamplighter traveller carpenter musician remedy memory "
    "injury victory ceremony~4 testament instrument melody company counsellor argument promontory~4 family burial "
    "inheritance~4",
}
MASS = {
    1: "gold salt bread wine blood dust snow rain frost fire~2 light night sleep death love hate grief joy hope fear "
    "shame pride truth faith time youth age war peace grace wit rage guilt luck",
    2: "silver water honey iron amber honour mercy justice reason wisdom patience~2 envy hunger "
    "poison friendship music "
    "courage sunlight moonlight madness kindness anger",
    3: "jealousy loyalty gratitude poverty liberty charity vanity",
}
ADJECTIVES = {
    1: "old young cold warm bright dark deep pale sweet sour sharp dull bold shy proud meek rich poor brave false true "
    "just kind wild calm strange swift slow soft hard thin broad blind deaf sick whole grey green white black red blue "
    "fair foul sad glad mad wise plain rare",
    2: "gentle bitter hollow heavy golden silver wooden broken hidden secret silent weary wicked faithful careful "
    "thankful crooked sacred distant humble noble idle ancient patient jealous honest happy angry hungry lonely merry "
    "stubborn cunning simple tender naked mortal",
    3: "beautiful innocent generous furious desolate delicate obedient~4 merciful forgotten unwilling miserable~4 "
    "dangerous glorious resolute",
}
TRANSITIVE = {
    1: "love hate fear trust serve praise blame curse bless guard watch mock wound heal crown crush drown burn mend "
    "paint forge weigh mourn judge name call help hide/hid/hidden~2 seek/sought/sought bind/bound/bound "
    "find/found/found keep/kept/kept hold/held/held lose/lost/lost leave/left/left break/broke/broken~2 "
    "steal/stole/stolen~2 choose/chose/chosen~2 know/knew/known see/saw/seen hear/heard/heard bear/bore/borne "
    "buy/bought/bought sell/sold/sold teach/taught/taught catch/caught/caught feed/fed/fed lead/led/led "
    "strike/struck/struck shake/shook/shaken~2 forsake~2/forsook~2/forsaken~3 win/won/won rob/robbed/robbed",
    2: "honour follow answer question carry bury ransom conquer comfort banish summon poison murder pardon "
    "promise welcome remember~3 deliver~3 abandon~3 dishonour~3 flatter despise reward betray "
    "forget/forgot/forgotten~3 forgive/forgave/forgiven~3 deceive refuse obey desire~3 deny "
    "destroy behold/beheld/beheld",
}
INTRANSITIVE = {
    1: "wait weep/wept/wept sleep/slept/slept wake/woke/woken~2 rise/rose/risen~2 fall/fell/fallen~2 stand/stood/stood "
    "sit/sat/sat kneel/knelt/knelt fight/fought/fought burn shine/shone/shone sing/sang/sung speak/spoke/spoken~2 "
    "laugh dance sail ride/rode/ridden~2 walk run/ran/run turn bleed/bled/bled die live fade grow/grew/grown "
    "bend/bent/bent pray swear/swore/sworn work drift cry",
    2: "wander tremble linger vanish perish hurry listen suffer labour whisper murmur wither gather return~2 repent",
}
ADVERBS = {
    1: "now still here there soon once late well",
    2: "never always often softly gladly bravely sadly slowly wisely alone again tonight today",
    3: "tomorrow patiently faithfully heavily secretly",
}
PREPOSITIONS = {
    1: "in by near past through at from on",
    2: "upon beyond beside beneath before behind above below",
}
MALE = {
    1: "Brannt Holm Garr Voss",
    2: "Corvin Haldren Orvane Bertholt Tamsin Aldric Rovo Perrin Lucan Edmar Wolfram Jossel Ostler Merrik",
    3: "Tiberon Calloway Ismario~4 Valerand Domenec Fenimor Anselmo Roderan",
}
FEMALE = {
    1: "Wren Maeve Blythe",
    2: "Ilva Sunniva~3 Briony~3 Hesper Corra Linnet Thessa Orla Maren Petra Yseld Dorrit",
    3: "Ilvara Rosamel Oriana~4 Melisend Vianna Emmeline Tamora Alisane",
}
PLACES = {
    1: "Dorne Varr Holt Marsh-End~2",
    2: "Carrow Ostmark Merrow Tallis Brinehurst Lowgate Harwick Silverford~3 Ravenholt~3",
    3: "Pellamar Aldermoor Vessaly Orrery Candlewick Santerra",
}
TITLES_MALE = ("", "", "", "KING", "DUKE", "LORD", "CAPTAIN", "FRIAR")
TITLES_FEMALE = ("", "", "", "QUEEN", "LADY", "DUCHESS", "SISTER")
TRADES = ("Ferryman", "Lamplighter", "Weaver", "Soldier", "Gardener", "Sailor", "Watchman", "Miller", "Nurse")
ORDINALS = ("First", "Second", "Third")

# Words that belong to the next one, so that a line avoids to end with them.
CLINGING = (
    "a an the of my thy his her our this these no in by near past through at from on and but that to two three four"
)

# Plurals that the rule for -s and -es does not give; the others follow it.
IRREGULAR_PLURALS = {
    "child": "children",
    "leaf": "leaves",
    "thief": "thieves",
    "knife": "knives",
    "wolf": "wolves",
    "fisherman": "fishermen",
    "ferryman": "ferrymen",
}

RULES = """
SENTENCE: 9 CLAIM . | 3 CLAIM ; CLAIM . | 3 CLAIM , and CLAIM . | 2 CLAIM , but CLAIM . | 3 CONDITION . | 2 ORDER . |
    ORDER ! | 2 CALL , CLAIM . | CALL , ORDER ! | 2 PROVERB . | EXCLAIM ! | CLAIM : PROVERB . | TIME , CLAIM . |
    ORDER , CALL .
QUESTION: 2 what SINGULAR-NOUN is this , CALL ? | why do you VB OBJECT ? | why dost thou VB thy NOUN ? |
    who VZ SINGULAR ? | where is SINGULAR ? | where are PLURAL ? | is SINGULAR ADJECTIVE ? | are PLURAL ADJECTIVE ? |
    hast thou VN SINGULAR ? | have you VN PLURAL ? | shall I VB OBJECT ? | will MAN VB his NOUN ? |
    will WOMAN VB her NOUN ? | how shall we VB OBJECT , CALL ? | dost thou WB PLACE-PHRASE ?
REPLY: 3 ay , CLAIM . | 3 no , CLAIM . | nay , CALL ; CLAIM . | 'tis ADJECTIVE , and CLAIM . |
    I know it not , CALL . | so say they all ; but CLAIM . | never~2 , while CLAIM .
GREETING: good MAN , CLAIM . | good WOMAN , CLAIM . | CALL , well met ; CLAIM . | hail , CALL ! CLAIM . |
    peace , CALL ; CLAIM . | what news of PLACE , CALL ?
CLAIM: 4 I-CLAIM | 3 THOU-CLAIM | 6 ONE-CLAIM | 5 MANY-CLAIM | 2 HE-CLAIM | 2 SHE-CLAIM | 2 WE-CLAIM
I-CLAIM: I VB OBJECT | I will VB OBJECT | I have VN my NOUN | I VD my NOUN PLACE-PHRASE | I am ADJECTIVE , my NOUN |
    I have WN PLACE-PHRASE | I would not VB MASS for MASS | I WD ADVERB PLACE-PHRASE | I am the NOUN of PLACE
THOU-CLAIM: thou art ADJECTIVE and ADJECTIVE | thou dost VB thy NOUN | thou shalt WB PLACE-PHRASE |
    thou hast VN thy NOUN | thou wilt VB OBJECT ADVERB | thou hast no MASS in thy NOUN | thou art my NOUN
ONE-CLAIM: 3 SINGULAR VZ OBJECT | 2 SINGULAR WZ PLACE-PHRASE | SINGULAR is ADJECTIVE | SINGULAR hath VN OBJECT |
    SINGULAR will WB ADVERB | SINGULAR VD OBJECT | SINGULAR WD ADVERB | there is MASS PLACE-PHRASE |
    SINGULAR is a ADJECTIVE NOUN | SINGULAR was VN by SINGULAR
MANY-CLAIM: 3 PLURAL VB OBJECT | 2 PLURAL WB PLACE-PHRASE | PLURAL are ADJECTIVE | PLURAL have VN OBJECT |
    PLURAL will WB ADVERB | PLURAL VD OBJECT | PLURAL WD ADVERB | PLURAL were VN by SINGULAR
HE-CLAIM: MAN VZ his NOUN | MAN hath VN his NOUN | he WZ PLACE-PHRASE , and VZ his NOUN |
    MAN is ADJECTIVE , and he WZ ADVERB | MAN , whom I VB , WZ in PLACE
SHE-CLAIM: WOMAN VZ her NOUN | WOMAN hath VN her NOUN | she WZ PLACE-PHRASE , and VZ her NOUN |
    WOMAN is ADJECTIVE , and she WZ ADVERB | WOMAN , whom I VB , WZ in PLACE
WE-CLAIM: we VB our NOUNS | we are ADJECTIVE , and our NOUNS are ADJECTIVE | we have VN our NOUN |
    we shall WB in PLACE ADVERB
CONDITION: if SINGULAR WZ , PLURAL WB ADVERB | if thou dost VB thy NOUN , I will VB my NOUN |
    when SINGULAR VZ MASS , PLURAL WB | though I VB OBJECT , I VB SINGULAR | till PLURAL WB , let SINGULAR WB |
    ere SINGULAR WZ , we shall VB OBJECT
ORDER: VB OBJECT | WB PLACE-PHRASE | let SINGULAR VB OBJECT | let PLURAL WB ADVERB | go , VB the NOUN of PLACE |
    bring me MASS and MASS | come , VB thy NOUN | tell MAN that CLAIM | tell WOMAN that CLAIM | do not VB OBJECT
PROVERB: MASS VZ MASS | he that VZ MASS shall VB MASS | no NOUN VZ MASS | the ADJECTIVE NOUN VZ the ADJECTIVE NOUN |
    MASS is but a NOUN of MASS | all NOUNS WB , and so shall we | where MASS WZ , MASS WZ too
EXCLAIM: O ADJECTIVE NOUN | by the salt and by the silver~2 tide | alas , my NOUN | now the bells of PLACE be VN |
    O MASS , O MASS | by the lamp that never~2 slept
TIME: this MASS | before~2 the NOUN WZ | by the light of the NOUN | in the ADJECTIVE NOUN of MASS |
    after~2 so much MASS
CALL: 2 my lord | my lady~2 | sir | 3 MAN | 3 WOMAN | good MAN | sweet WOMAN | my ADJECTIVE NOUN | friend
OBJECT: 3 SINGULAR | 3 PLURAL | 2 MASS | me | him | her | them | SINGULAR-NOUN and MASS
SINGULAR: 3 the NOUN | 2 the ADJECTIVE NOUN | 2 my NOUN | thy NOUN | this NOUN | a ADJECTIVE NOUN | the NOUN of MASS |
    the NOUN of PLACE | our ADJECTIVE NOUN | the NOUN that VZ the NOUN
PLURAL: 3 the NOUNS | 2 the ADJECTIVE NOUNS | my NOUNS | thy NOUNS | these ADJECTIVE NOUNS | the NOUNS of PLACE |
    our NOUNS | NUMBER NOUNS | the NOUNS that VB the NOUN
SINGULAR-NOUN: NOUN | ADJECTIVE NOUN
PLACE-PHRASE: 3 PREPOSITION the NOUN | PREPOSITION the ADJECTIVE NOUN | PREPOSITION my NOUN | PREPOSITION thy NOUN |
    in PLACE | PREPOSITION the NOUNS | with MASS and MASS | like a ADJECTIVE NOUN
NUMBER: two | three | four | seven~2 | ten | a~1 thousand~2
"""
