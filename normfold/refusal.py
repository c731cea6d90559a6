"""Why an affine cannot go somewhere."""

from __future__ import annotations


class Refused(Exception):
    """A fold that is not exact, or not worth it.

    Attributes:
        code: NF1xx reason code.
        detail: one clause with the values at hand.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail

    def again(self) -> Refused:
        """The same refusal, to be raised where this one is at hand.

        A frame that holds what it raises is a cycle, and with it all that the frame has computed.
        """
        return Refused(self.code, self.detail)
