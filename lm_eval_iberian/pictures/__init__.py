"""What a sweep's run folder looks like: one page that needs no network, pictures and tables.

    write_report(Path("runs/figure1"))     # -> runs/figure1/report/report.html, with its pictures and tables

    curves, heat, tradeoff, forest    the pictures (matplotlib), each from plain data
    style        colours, and figures as SVG (that follow light and dark in the page) and PNG
    page, page.html.j2, head    report.html
    write        all files of a report

The figures come from `lm_eval_iberian.compare`. matplotlib is imported where a figure is made; everything here reads,
and writes only into RUN/report.
"""
