"""nats-py's protocol parser, with a quick way for what nearly all of it is: messages.

nats-py 2.16 tries seven patterns in turn and moves the rest of its buffer once or twice a message. Here messages that
came whole are cut out one after the other, and the buffer is moved once; everything else the server says is given to
nats-py's own parser, a line at a time. A message that is not whole yet stays where it is.

Source: NATS client protocol (MSG, HMSG); nats-py 2.16 `Parser.parse`.
"""

from typing import Final

from nats.errors import ProtocolError
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser

MOST_LINE_BYTES: Final = 1 << 20  # MQTT topics alone may have 64 KiB, and more as subjects
_CRLF: Final = b"\r\n"
_PREFIXES: Final = (b"MSG ", b"HMSG ")
_WORDS: Final = {b"MSG": (4, 5), b"HMSG": (5, 6)}  # without and with a subject to reply to


class QuickParser(Parser):
    """A parser that hands whole messages on at once."""

    async def parse(self, data: bytes = b"") -> None:
        """Take in what was read from the socket; hand on what is whole of it.

        Raises:
            ProtocolError: the server says something that is no NATS.
        """
        self.buf.extend(data)
        while self.buf and self.state == AWAITING_CONTROL_LINE:
            await self._messages()
            end = self.buf.find(_CRLF)
            if end < 0 or self.buf.startswith(_PREFIXES):
                if end < 0 and len(self.buf) > MOST_LINE_BYTES:
                    raise ProtocolError("nats: a line without an end")
                return
            line, rest = self.buf[: end + len(_CRLF)], self.buf[end + len(_CRLF) :]
            self.buf = line
            await super().parse()
            if self.buf is not line:
                return  # what it said ended the connection, and this belongs to none any more
            if line:
                raise ProtocolError("nats: unknown protocol")
            self.buf += rest

    async def _messages(self) -> None:
        """Hand on the whole messages that the buffer begins with."""
        buffer, at = self.buf, 0
        try:
            while buffer.startswith(_PREFIXES, at):
                end = buffer.find(_CRLF, at)
                if end < 0:
                    return
                # At spaces alone, as the server does: other white space may be part of a subject.
                words = buffer[at:end].split(b" ")
                if len(words) not in _WORDS[bytes(words[0])]:
                    raise ProtocolError("nats: malformed MSG")
                begin = end + len(_CRLF)
                after = begin + int(words[-1])
                if len(buffer) < after + len(_CRLF):
                    return
                at = after + len(_CRLF)
                await self._hand_on(words, bytes(buffer[begin:after]))
        except (ValueError, IndexError) as error:
            raise ProtocolError("nats: malformed MSG") from error
        finally:
            del buffer[:at]

    async def _hand_on(self, words: list[bytearray], data: bytes) -> None:
        has_headers = len(words[0]) == len(b"HMSG")
        rest = words[3:-2] if has_headers else words[3:-1]
        reply = bytes(rest[0]) if rest else b""
        size = int(words[-2]) if has_headers else 0
        headers, payload = (data[:size], data[size:]) if has_headers else (None, data)
        await self.nc._process_msg(int(words[2]), bytes(words[1]), reply, payload, headers)
