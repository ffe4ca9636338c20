"""One page about measurements: what was measured, on which board, and what the compression had decided.

runs       reads records and what lies beside them
sections   what the page says, one function a section
blocks     what a section is made of: tables, charts, paragraphs
chart      draws a chart as SVG
page, markdown, flat    write HTML, Markdown, and a CSV with one row a run
"""
