"""What every result says of itself, in words for people and in the form that programs look for.

Sources: IPTC NewsCodes "digitalsourcetype"; IPTC Photo Metadata Standard, `DigitalSourceType`.
"""

import odfs_jax

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
AI_EDITED = "AI-edited face swap"
COMMENT = f"{AI_EDITED} (odfs-jax {odfs_jax.__version__}); DigitalSourceType={SOURCE_TYPE}"
XMP = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
    xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    Iptc4xmpExt:DigitalSourceType="{SOURCE_TYPE}"
    xmp:CreatorTool="odfs-jax {odfs_jax.__version__}"/>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>""".encode()
