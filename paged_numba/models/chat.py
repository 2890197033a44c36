"""`ChatML`: the token ids of a conversation between control tokens, ``<|im_start|>`` and ``<|im_end|>``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ..arguments import listed, shown, text

# A template is a program in Jinja. Two are known: ChatML, and ChatML with a system message for conversations without
# one. Anything else, such as tools or dates, is another template.
_TEMPLATE = re.compile(
    r"\{% for message in messages %\}"
    r"(?:\{% if loop\.first and messages\[0\]\['role'\] != 'system' %\}"
    r"\{\{ '<\|im_start\|>system\n(?P<system>[^'{}\\]*)<\|im_end\|>\n' \}\}\{% endif %\})?"
    r"\{\{ ?'<\|im_start\|>' \+ message\['role'\] \+ '\n' \+ message\['content'\] \+ '<\|im_end\|>' \+ '\n' ?\}\}"
    r"\{% endfor %\}"
    r"\{% if add_generation_prompt %\}\{\{ '<\|im_start\|>assistant\n' \}\}\{% endif %\}"
)


class ChatML(NamedTuple):
    """How a model marks the messages of a conversation.

    Attributes
    ----------
    start, end : int
        Token ids of ``<|im_start|>`` and ``<|im_end|>``.
    system : str or None
        Message that comes first in a conversation without a system message of its own.
    """

    start: int
    end: int
    system: str | None

    @classmethod
    def of(cls, template: Any, control: Mapping[str, int]) -> ChatML | None:
        """Return the marks of a template in Jinja, None if it is not one of those known here.

        Parameters
        ----------
        template : str or None
        control : mapping of str
            The control tokens of the vocabulary, and their ids.
        """
        # Jinja reads an escaped line end in a text as one.
        known = _TEMPLATE.fullmatch(template.replace("\\n", "\n")) if isinstance(template, str) else None
        if known is None or not {"<|im_start|>", "<|im_end|>"} <= control.keys():
            return None
        return cls(control["<|im_start|>"], control["<|im_end|>"], known["system"])

    def encode(self, messages: Sequence[Mapping[str, str]], encode: Callable[[str], list[int]]) -> list[int]:
        """Return the token ids of a conversation, up to where the next answer begins.

        Parameters
        ----------
        messages : sequence of dict
            Each has a ``"role"``, such as ``"user"``, and a ``"content"``.
        encode : callable
            Returns the token ids of a text.

        Raises
        ------
        TypeError, ValueError
            `messages` is empty, or a message lacks a role or a content.
        """
        conversation = [
            _message(number, message) for number, message in enumerate(listed("messages", messages, "dicts"))
        ]
        if not conversation:
            raise ValueError("messages must hold at least one message, got messages=[]")
        if self.system is not None and conversation[0][0] != "system":
            conversation.insert(0, ("system", self.system))
        line_end, ids = encode("\n"), []
        for role, content in conversation:
            ids += [self.start, *encode(f"{role}\n{content}"), self.end, *line_end]
        return [*ids, self.start, *encode("assistant\n")]


def _message(number: int, message: Any) -> tuple[str, str]:
    if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
        raise TypeError(f"messages[{number}] must be a dict with 'role' and 'content', got {shown(message)}")
    return text(f"messages[{number}]['role']", message["role"]), text(
        f"messages[{number}]['content']", message["content"]
    )
