"""Sentences whose sentiment is known: a judgement and a feeling, each of a known grade, about one of many things."""

from functools import cache

import numpy as np

NO_WORDS = "[inaudible]"
"""What the cue of a clip without words holds: a marker, not words."""

TOPICS = (
    *("the film", "the hotel", "the concert", "the meal", "the phone", "the book", "the flight", "the party"),
    *("the course", "the match", "the exhibition", "the new office", "the garden", "the trip", "the ending"),
    *("the interview", "the song", "the camera", "the service", "the museum", "the weekend", "the story"),
    *("the bus ride", "the restaurant", "the play", "the lecture", "the apartment", "the website", "the show"),
    *("the beach", "the market", "the new printer", "the neighbourhood", "the podcast", "the coffee", "the game"),
)
OPENERS = ("", "", "", "Well,", "You know,", "So,", "I mean,", "Look,", "Right,", "In the end", "As I said,")

JUDGEMENTS: dict[float, tuple[str, ...]] = {
    -3.0: ("horrible", "appalling", "disgusting", "atrocious", "an absolute disaster", "utterly dreadful"),
    -2.5: ("terrible", "awful", "dreadful", "really horrible", "abysmal", "a total mess"),
    -2.0: ("really bad", "nasty", "very poor", "lousy", "painful", "quite awful"),
    -1.5: ("bad", "poor", "unpleasant", "annoying", "rather bad", "frustrating"),
    -1.0: ("disappointing", "weak", "boring", "dull", "tedious", "rather poor"),
    -0.5: ("a bit disappointing", "a little dull", "slightly weak", "somewhat boring", "a bit slow"),
    0.0: ("ordinary", "average", "as usual", "like any other", "neither good nor bad", "standard"),
    0.5: ("okay", "acceptable", "all right", "reasonable", "decent enough", "fairly okay"),
    1.0: ("fine", "nice", "pleasant", "quite nice", "rather good", "decent"),
    1.5: ("good", "enjoyable", "very nice", "charming", "really pleasant", "quite good"),
    2.0: ("great", "lovely", "delightful", "very good", "really enjoyable", "impressive"),
    2.5: ("excellent", "wonderful", "beautiful", "really great", "superb", "fantastic"),
    3.0: ("amazing", "absolutely wonderful", "magnificent", "perfect", "brilliant", "outstanding"),
}
FEELINGS: dict[float, tuple[str, ...]] = {
    -3.0: ("I hated every minute", "I was absolutely furious", "it was a nightmare", "it made me sick"),
    -2.0: ("I really disliked it", "I felt miserable", "it made me angry", "I was very unhappy"),
    -1.0: ("I was let down", "I felt a bit sad", "it was not for me", "I lost interest"),
    0.0: ("I have no strong opinion", "I felt neither way", "it was what it was", "nothing stood out"),
    1.0: ("I did not mind it", "I felt rather content", "I would go again", "I was satisfied"),
    2.0: ("I really liked it", "it made me happy", "I felt very good", "I was very pleased"),
    3.0: ("I loved every minute", "I was absolutely thrilled", "it was a dream", "I adore it"),
}
_LINKS = ("and", "so", "and honestly", "and frankly")
_NEAR = 0.26
"""A pair of grades may miss the signal by this much."""
_SYLLABLES = ("ma", "lu", "ro", "be", "na", "wo", "di", "mo", "re", "ga", "li", "nu")


def sentence(signal: float, rng: np.random.Generator) -> str:
    """A sentence that says ``signal`` (-3..3): the mean grade of its two halves is the nearest there is, or nearly."""
    pairs = _pairs(round(signal * 20) / 20)
    judgement, feeling = pairs[int(rng.integers(len(pairs)))]
    parts = [
        _pick(OPENERS, rng),
        _pick(TOPICS, rng),
        "was",
        _pick(JUDGEMENTS[judgement], rng),
        _pick(_LINKS, rng),
        _pick(FEELINGS[feeling], rng),
    ]
    text = " ".join(part for part in parts if part)
    return text[0].upper() + text[1:] + "."


def mumble(rng: np.random.Generator) -> str:
    """Speech without words, for clips whose words cannot be made out."""
    return " ".join(
        "".join(_pick(_SYLLABLES, rng) for _ in range(int(rng.integers(2, 4)))) for _ in range(int(rng.integers(5, 8)))
    )


@cache
def _pairs(signal: float) -> tuple[tuple[float, float], ...]:
    """Grades (judgement, feeling) that lie close to each other and whose mean is close to ``signal``."""
    near = [
        (judgement, feeling)
        for judgement in JUDGEMENTS
        for feeling in FEELINGS
        if abs(judgement - feeling) <= 1.0 and abs((judgement + feeling) / 2 - signal) < _NEAR
    ]
    return tuple(near)


def _pick(choices: tuple[str, ...], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]
