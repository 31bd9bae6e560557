"""What a generated picture's file says of its origin. Never the prompt, which its sender may not want to pass on."""

from collections.abc import Mapping
from typing import Final
from xml.sax.saxutils import quoteattr

XMP: Final = "XML:com.adobe.xmp"
"""Key of the XMP packet: the keyword that PNG gives it."""

_GENERATOR: Final = "Atelier"
# IPTC's word for what a trained model made, and its properties for which (Photo Metadata Standard 2025.1). The identifier of the
# packet is the same in all files.
_PACKET: Final = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about=""
 xmlns:xmp="http://ns.adobe.com/xap/1.0/"
 xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
 xmlns:atelier="urn:atelier:picture:1"
 Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
 Iptc4xmpExt:AISystemUsed={model}
 Iptc4xmpExt:AISystemVersionUsed={version}
 xmp:CreatorTool={generator}{making}/>
</rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"""


def provenance(model: str, version: str, seed: int | None, steps: int) -> Mapping[str, str]:
    """Notes of a picture: `Software`, `model`, `version`, `seed`, `steps`, and all of them as an XMP packet under `XMP`.

    Without a seed nothing of it is chance.
    """
    making = {"seed": str(seed), "steps": str(steps)} if seed is not None else {"steps": str(steps)}
    packet = _PACKET.format(
        model=quoteattr(model),
        version=quoteattr(version),
        generator=quoteattr(_GENERATOR),
        making="".join(f"\n atelier:{key}={quoteattr(value)}" for key, value in making.items()),
    )
    return {"Software": _GENERATOR, "model": model, "version": version, **making, XMP: packet}
