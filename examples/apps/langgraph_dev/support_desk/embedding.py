"""Vectors without a model: how often a text speaks of each topic."""

TOPICS = (("pay", "price", "refund"), ("train", "seat"), ("cancel", "delay"))


def embed(texts: list[str]) -> list[list[float]]:
    """A vector for each text. The last number keeps a text of no topic from being nothing."""
    return [[*(float(sum(text.lower().count(word) for word in topic)) for topic in TOPICS), 0.1] for text in texts]
