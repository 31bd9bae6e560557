from xml.etree import ElementTree as ET

import pytest

from deployments.pictures.provenance import XMP, provenance

IPTC = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"


def test_what_is_noted() -> None:
    notes = provenance("tiles-flow", "2", 2**63 - 1, 8)
    assert {key: notes[key] for key in notes if key != XMP} == {
        "Software": "Atelier",
        "model": "tiles-flow",
        "version": "2",
        "seed": "9223372036854775807",
        "steps": "8",
    }


@pytest.mark.parametrize("name", ["tiles-flow", "a<b>&\"c'", "\N{SNOWMAN}", "{seed}"])
def test_the_packet_is_xml_that_says_what_made_the_picture(name: str) -> None:
    packet = provenance(name, "1", 3, 20)[XMP]
    assert packet.startswith('<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>')
    root = ET.fromstring(packet)  # noqa: S314 - our own
    description = next(root.iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description"))
    source = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    assert description.get(f"{IPTC}DigitalSourceType") == source
    assert description.get(f"{IPTC}AISystemUsed") == name
    assert description.get(f"{IPTC}AISystemVersionUsed") == "1"
    assert description.get("{http://ns.adobe.com/xap/1.0/}CreatorTool") == "Atelier"
    assert description.get("{urn:atelier:picture:1}seed") == "3"
    assert description.get("{urn:atelier:picture:1}steps") == "20"
