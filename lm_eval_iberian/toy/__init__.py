"""A toy lab: tiny Llamas trained from scratch on small grammars, on which merging visibly teaches a language.

iberian toy --out DIR      # base, instruct, basque, galician, catalan
"""
