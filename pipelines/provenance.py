"""Where a restored image comes from <-> an XMP packet."""

import re
from dataclasses import dataclass
from xml.etree import ElementTree

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
DC = "http://purl.org/dc/elements/1.1/"
IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
OWN = "urn:archiver:reconstruction:1#"

# From IPTC's vocabulary of digital source types: made by a generative decoder, and by any other.
GENERATIVE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
CONVENTIONAL = "http://cv.iptc.org/newscodes/digitalsourcetype/algorithmicallyEnhanced"

# Characters: a JPEG's packet holds 65,502 bytes, and the caption is in it twice. The archive has all of it.
LONGEST_CAPTION = 4000

# XML 1.0 has no way to write these, not even as references.
_UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\\\\]")
_ESCAPED = re.compile(r"\\(?:u([0-9a-f]{4})|\\)")


@dataclass(frozen=True)
class Provenance:
    """What a restored image says about itself."""

    codec: str
    spec: str  # spec id
    bitstream_bytes: int
    archive: str
    key: str
    caption: str | None
    generative: bool = True  # the decoder is a trained network, which may show what never was

    @property
    def statement(self) -> str:
        """One sentence for people."""
        return (
            f"Reconstruction by archiver, not the original image: decoded from "
            f"{self.bitstream_bytes:,} bytes of codec {self.codec} (spec {self.spec})."
        )

    @property
    def description(self) -> str:
        """The caption, if there is one, then the statement."""
        return f"{_shortened(self.caption)}\n\n{self.statement}" if self.caption else self.statement


def to_xmp(provenance: Provenance) -> bytes:
    """An XMP packet: IPTC's source type, Dublin Core's description, and our own fields, as UTF-8."""
    fields = {
        "codec": provenance.codec,
        "spec": provenance.spec,
        "bitstreamBytes": str(provenance.bitstream_bytes),
        "archive": provenance.archive,
        "key": provenance.key,
    }
    if provenance.caption is not None:
        fields["caption"] = _shortened(provenance.caption)
    own = "".join(f"<own:{name}>{_escaped(text)}</own:{name}>" for name, text in fields.items())
    source_type = GENERATIVE if provenance.generative else CONVENTIONAL
    packet = (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF}">'
        f'<rdf:Description rdf:about="" xmlns:dc="{DC}" xmlns:iptc="{IPTC}" xmlns:own="{OWN}">'
        f"<iptc:DigitalSourceType>{source_type}</iptc:DigitalSourceType>"
        f'<dc:description><rdf:Alt><rdf:li xml:lang="x-default">{_escaped(provenance.description)}'
        "</rdf:li></rdf:Alt></dc:description>"
        f'{own}</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
    )
    return packet.encode()


def from_xmp(packet: bytes) -> Provenance | None:
    """Inverse of `to_xmp`; None for a packet that is not ours."""
    if b"<!DOCTYPE" in packet or OWN.encode() not in packet:  # no entities: they can be made to fill memory
        return None
    try:
        root = ElementTree.fromstring(packet.strip(b"\x00 \r\n\t"))
    except ElementTree.ParseError:
        return None

    def text(name: str) -> str | None:
        element = root.find(f".//{{{OWN}}}{name}")
        return None if element is None else _unescaped(element.text or "")

    codec, spec, count, archive, key = map(text, ("codec", "spec", "bitstreamBytes", "archive", "key"))
    if codec is None or spec is None or archive is None or key is None or not (count or "").isdecimal():
        return None
    source_type = root.findtext(f".//{{{IPTC}}}DigitalSourceType")
    return Provenance(
        codec, spec, int(count or ""), archive, key, text("caption"), source_type != CONVENTIONAL
    )


def plain(text: str) -> str:
    """Text whose control characters and lone surrogates are escapes of four hex digits, and backslashes doubled."""
    return _UNWRITABLE.sub(lambda found: _code(found[0]), text)


def _code(character: str) -> str:
    return "\\\\" if character == "\\" else f"\\u{ord(character):04x}"


def _escaped(text: str) -> str:
    # A bare carriage return would be read back as a line feed.
    for character, reference in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("\r", "&#13;")):
        text = text.replace(character, reference)
    return plain(text)


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)) if found[1] else "\\", text)


def _shortened(caption: str | None) -> str:
    caption = caption or ""
    return caption if len(caption) <= LONGEST_CAPTION else caption[: LONGEST_CAPTION - 1] + "…"
