"""What the suite measures, read from the folders of tasks/: languages, benchmarks, averages, groups.

files.py       manifest.yml and languages.yml, with errors that name file and key
languages.py   languages.yml: the names and codes of languages
benchmark.py   what a benchmark is; the kinds; what the paper averages
entries.py     a manifest's entries  ->  benchmarks
table.py       the benchmarks of all manifests; which average counts which
groups.py      the groups of lm_eval that follow from them
"""
