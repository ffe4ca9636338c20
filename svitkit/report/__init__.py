"""One page about measurements: what was measured, on which board, and what the compression had decided.

    runs, lines, artefacts  read records, and what lies beside them
    sections                what the page says, one function a section
    blocks                  what a section is made of: tables, charts, paragraphs
    chart                   a chart as data, and where its parts lie in the picture
    page, markdown, flat    HTML, Markdown, and CSV with one row a run
    write                   the files of a report

Sections know neither HTML nor Markdown: both are written from blocks.
"""
