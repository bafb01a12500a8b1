"""What a sweep's run folder looks like: one page that needs no network, pictures and tables.

    write_report(Path("runs/figure1"))     # -> runs/figure1/report/report.html, with its pictures and tables

    columns      what a sweep measured, as columns: the suite's averages, or the tasks' own metrics by language
    shape        which axis is the swept number, the language, the method
    differences  each merge minus each parent, paired over documents
    curves, heat, tradeoff, forest    the pictures (matplotlib), each from plain data
    style        colours, and figures as SVG (that follow light and dark in the page) and PNG
    answers      which documents to show side by side
    page, page.html.j2, head    report.html
    write        all files of a report

matplotlib is imported where a figure is made; everything here reads, and writes only into RUN/report.
"""
