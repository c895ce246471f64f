"""Result kind `encapsulated_pdf`: a report of one page or more with pictures of key slices, for systems that file PDF.

It names no patient: whose it is stands in the header, as in every object. UIDs of an order used here:
"encapsulated_pdf", "encapsulated_pdf.series".

Source:  PS3.3 A.45.1, C.24.2
"""

import unicodedata
from io import BytesIO

from fpdf import FPDF
from fpdf.fonts import FontFace
from PIL import Image
from pydicom.uid import EncapsulatedPDFStorage

from dicom_sr import codes, drawing, show
from dicom_sr.elements import Elements, code, elements, framed, tag_of
from dicom_sr.header import clock, written
from dicom_sr.kinds import Built, Order
from dicom_sr.kinds.measurement_report import PRODUCT_USE, RESEARCH_USE
from dicom_sr.nouns import Code
from dicom_sr.references import source_instances
from dicom_sr.script import Script

KIND = "encapsulated_pdf"

PICTURES = 3
LATIN = frozenset(map(chr, (*range(0x20, 0x7F), *range(0xA0, 0x100))))
"""Characters of the standard fonts of PDF."""

TYPED = {"\u2013": "-", "\u2014": "-", "\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2026": "...",
         "\u2264": "<=", "\u2265": ">=", "\u2212": "-", "\n": " "}  # fmt: skip
"""What a typewriter has for the characters that word processors put instead."""

UNPRINTED = "Some letters are printed without their marks or by their Unicode number; the structured report has them."
WIDTH_MM, GAP_MM = 190.0, 3.0
COLUMNS = (24, 30, 14, 32)
"""Widths of the table's columns, in percent."""


def build(order: Order) -> Built | None:
    """The PDF; there is always something to say."""
    document = pdf(order)

    def content(script: Script) -> tuple[Elements, list[Code]]:
        header = order.source.header
        said = elements(
            script,
            ConversionType="SYN",
            AcquisitionDateTime=None,
            BurnedInAnnotation="YES" if order.source.acquisition.burned_in else "NO",
            DocumentTitle=f"{drawing.claim(order)}: {order.title}"[:1024],
            ConceptNameCodeSequence=[code(codes.find("imaging_measurement_report"), script)],
            SourceInstanceSequence=source_instances(order.source),
            MIMETypeOfEncapsulatedDocument="application/pdf",
            EncapsulatedDocumentLength=len(document),
        )
        return said | script.copied(header, ("RecognizableVisualFeatures",)) | {
            tag_of("EncapsulatedDocument"): framed(tag_of("EncapsulatedDocument"), "OB", document)
        }, []

    return written(order, kind=KIND, sop_class_uid=EncapsulatedPDFStorage, modality="DOC", content=content)


def pdf(order: Order) -> bytes:
    """The document: title, key slices, measurements with their reasons, remarks, and what it may be used for."""
    page = FPDF(format="A4")
    page.set_creation_date(clock(order))
    page.set_producer("Isocenter")
    page.set_title(plain(f"{drawing.claim(order)}: {order.title}"))
    page.add_page()
    page.set_font("Helvetica", "B", 16)
    page.cell(text=plain(drawing.claim(order)), new_x="LMARGIN", new_y="NEXT")
    page.set_font("Helvetica", "", 12)
    page.cell(text=plain(order.title), new_x="LMARGIN", new_y="NEXT")
    page.set_font("Helvetica", "B", 9)
    page.multi_cell(0, text=plain(RESEARCH_USE if order.research else PRODUCT_USE), new_x="LMARGIN", new_y="NEXT")
    page.ln(2)
    pictures(order, page)
    table(order, page)
    page.set_font("Helvetica", "", 8)
    said = "".join((order.title, *order.findings.remarks, order.completeness, *map(repr, show.table(order.findings))))
    unprinted = (UNPRINTED,) if any(one not in LATIN and one not in TYPED for one in said) else ()
    for words in (*order.findings.remarks, order.completeness, *unprinted):
        page.multi_cell(0, text=plain(words), new_x="LMARGIN", new_y="NEXT")
    return bytes(page.output())


def pictures(order: Order, page: FPDF) -> None:
    """Key slices beside each other, with their legend."""
    indices = drawing.key_planes(order.findings, PICTURES)
    if not indices:
        return
    values = drawing.planes_of(order.source, indices)
    low, high = drawing.window(order, values, indices)
    between_rows, between_columns = order.source.planes[0].spacing
    side, top, highest = (WIDTH_MM - (PICTURES - 1) * GAP_MM) / PICTURES, page.get_y(), 0.0
    for place, (index, plane) in enumerate(zip(indices, values, strict=True)):
        layers = [layer[index] for layer in order.findings.layers]
        present = [s for s in order.findings.segments if any((layer == s.number).any() for layer in layers)]
        scale = drawing.enlargement(*plane.shape)
        picture = drawing.drawn(drawing.grey(plane, low, high), layers, present, scale)
        out = BytesIO()
        Image.fromarray(drawing.captioned(picture, order, index, present)).save(out, "PNG")
        height, width = plane.shape[0] * between_rows, plane.shape[1] * between_columns
        factor = side / max(height, width)
        page.image(out, x=page.l_margin + place * (side + GAP_MM), y=top, w=width * factor, h=height * factor)
        highest = max(highest, height * factor)
    page.set_y(top + highest + GAP_MM)


def table(order: Order, page: FPDF) -> None:
    """All measurements, withheld ones with their reason, and what was not found."""
    page.set_font("Helvetica", "", 9)
    with page.table(col_widths=COLUMNS, headings_style=FontFace(emphasis="BOLD"), first_row_as_headings=True) as lines:
        lines.row(("Finding", "Measurement", "Value", "Note"))
        for row in show.table(order.findings):
            words = (row.finding, row.measurement, f"{row.value} {row.unit}".strip(), row.note)
            lines.row(tuple(map(plain, words)))


def plain(words: str) -> str:
    """The words as the standard fonts, which know Latin-1 alone, can show them.

    A letter with a mark loses it where it must, and what then is still strange becomes its Unicode number: never a
    question mark, which would look like a doubt of the report's own.
    """
    return "".join(one if one in LATIN else _plainly(one) for one in words)


def _plainly(character: str) -> str:
    if character in TYPED:
        return TYPED[character]
    bare = "".join(one for one in unicodedata.normalize("NFKD", character) if not unicodedata.combining(one))
    return bare if bare and set(bare) <= LATIN else f"[U+{ord(character):04X}]"
