"""What the suite measures, read from the folders of tasks/: languages, benchmarks, averages, groups.

files.py       manifest.yml and languages.yml, with errors that name file and key
languages.py   languages.yml: the names and codes of languages
table.py       the benchmarks of all manifests; which average counts which
groups.py      the groups of lm_eval that follow from them
"""
