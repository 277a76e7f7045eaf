"""Why a sealed dataset is refused."""


class Refused(Exception):
    """`layer` is a word of docs/spec/sealed-dataset.md section 8."""

    def __init__(self, layer: str, reason: str) -> None:
        super().__init__(f"{layer}: {reason}")
        self.layer = layer


def require(condition: bool, layer: str, reason: str) -> None:
    if not condition:
        raise Refused(layer, reason)
